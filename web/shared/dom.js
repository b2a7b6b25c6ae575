// Pieces of page that stand in nodes.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"

const style = document.createElement("link")
style.rel = "stylesheet"
style.href = new URL("../faceclip.css", import.meta.url)
document.head.append(style)

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties)
  made.append(...children)
  return made
}

// The host's pictures, by what a node's result says of one.
export function pictureUrl({ filename, subfolder, type }) {
  const query = new URLSearchParams({ filename, subfolder: subfolder ?? "", type })
  return api.apiURL(`/view?${query}`)
}

// Let the page have the pointer and the keys while they are used inside: the canvas would drag or delete the node.
function keepToItself(root) {
  for (const name of ["pointerdown", "pointermove", "pointerup", "mousedown", "dblclick", "keydown", "keyup"]) {
    root.addEventListener(name, (event) => event.stopPropagation())
  }
  root.addEventListener("wheel", (event) => {
    const scrolls = root.scrollHeight > root.clientHeight
    if (scrolls) event.stopPropagation()
    else if (!LiteGraph.vueNodesMode) app.canvas.processMouseWheel(event)
  })
}

// Puts an element into a node as a widget that is neither saved nor queued. minHeight, maxHeight: functions, in px.
// The type has to be one that no front end knows: Nodes 2.0 shows a component of its own for those it does.
export function addElement(node, name, label, root, minHeight, maxHeight = () => undefined) {
  root.classList.add("faceclip")
  keepToItself(root)
  const widget = node.addDOMWidget(name, name.toUpperCase(), root, {
    serialize: false, // not in the prompt
    hideOnZoom: false,
    hideInPanel: true, // an element can stand in one place only
    getMinHeight: () => (widget.hidden ? 0 : minHeight()),
    getMaxHeight: () => (widget.hidden ? 0 : maxHeight()),
    getValue: () => "",
    setValue: () => {},
  })
  widget.serialize = false // not in the workflow
  widget.label = label
  return widget
}

// Has an element seen or not. It is never taken away: some renderers don't notice when it comes back.
export function setVisible(node, widget, visible) {
  widget.hidden = !visible
  widget.element.style.display = visible ? "" : "none"
  fit(node, widget)
}

// To be called when what an element holds has changed.
export function fit(node, widget) {
  // Nodes 2.0 of older front ends doesn't ask for the height.
  widget.element.style.minHeight = LiteGraph.vueNodesMode ? `${widget.options.getMinHeight()}px` : ""
  redraw(node)
}

// Makes room for an element that has something to show now; from then on the size is the user's.
export function growOnce(node, widget) {
  if (widget.hadRoom) return
  widget.hadRoom = true
  const [width, height] = node.computeSize()
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)])
  redraw(node)
}

export function redraw(node) {
  node.setDirtyCanvas(true, true)
}
