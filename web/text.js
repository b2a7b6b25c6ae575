// Shows what a node of this pack has to tell in the node itself, as text that can be copied; an error in red.

import { addElement, element, grow, setVisible } from "./shared/dom.js"
import { widgetOf } from "./shared/graph.js"
import { addViewer } from "./shared/results.js"

const WIDGET = "faceclip_text"
const LINE_HEIGHT = 16 // px
const MOST_LINES = 12 // longer text scrolls

function addText(node) {
  const area = element("textarea", { readOnly: true, className: "faceclip-text", ariaLabel: "Result" })
  // One line more than there are, for a line that wraps.
  const lines = () => Math.min(Math.max(area.value.split("\n").length + 1, 3), MOST_LINES)
  return addElement(node, WIDGET, "Result", area, () => lines() * LINE_HEIGHT)
}

function show(node, output, error) {
  const present = widgetOf(node, WIDGET)
  const widget = present ?? addText(node)
  const { element: area } = widget
  area.value = error ?? [output.text].flat().join("\n")
  area.classList.toggle("faceclip-error", !!error)
  area.scrollTop = 0
  setVisible(node, widget, true)
  if (!present) grow(node) // once; from then on the size is the user's
}

function clear(node) {
  const widget = widgetOf(node, WIDGET)
  if (widget) {
    widget.element.value = ""
    setVisible(node, widget, false)
  }
}

const everyNode = { includes: (name) => !!name?.startsWith("FaceCLIP") }
addViewer({ nodes: everyNode, key: "text", show, clear })
