// Place a person in the picture: Add Person shows the picture's frame, those added before in outline, and takes a box
// that is drawn with the pointer or moved with the arrow keys.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { addElement, element } from "./shared/dom.js"
import { allNodes, setWidget, watchWidget, widgetOf } from "./shared/graph.js"
import { say } from "./shared/words.js"

const NODE = "FaceCLIPAddPerson"
const WIDGET = "faceclip_place"
const HEIGHT = 200 // px
const SMALLEST = 0.02 // of the picture: a click is no box
const STEP = 0.01
const BOX = ["x", "y", "box_width", "box_height"]
const REGIONS = {
  "left half": [0, 0, 1 / 2, 1],
  "right half": [1 / 2, 0, 1 / 2, 1],
  "left third": [0, 0, 1 / 3, 1],
  "middle third": [1 / 3, 0, 1 / 3, 1],
  "right third": [2 / 3, 0, 1 / 3, 1],
  "whole picture": [0, 0, 1, 1],
}
const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }

const rounded = (part) => Math.round(part / STEP) * STEP
const within = (part) => Math.min(1, Math.max(0, part))

function nodeBefore(node, input) {
  const slot = node.inputs?.findIndex((one) => one.name === input) ?? -1
  return slot < 0 || !node.graph ? null : node.getInputNode(slot) // without a graph while it is being made
}

const isWired = (node, input) => node.inputs?.some((one) => one.name === input && one.link != null)

// A number of the node: its own, or that of the widget behind the link.
function numberOf(node, name) {
  const before = nodeBefore(node, name)
  const theirs = before && (widgetOf(before, name) ?? before.widgets?.find((one) => typeof one.value === "number"))
  return theirs?.value ?? widgetOf(node, name).value
}

function boxOf(node) {
  return REGIONS[widgetOf(node, "region").value] ?? BOX.map((name) => widgetOf(node, name).value)
}

// Those who are in the picture before this one, the nearest first; other nodes of the chain are passed over.
function earlierPeople(node) {
  const found = []
  const seen = new Set([node.id])
  let before = nodeBefore(node, "conditioning")
  while (before && !seen.has(before.id)) {
    seen.add(before.id)
    if (before.comfyClass === NODE) found.push(before)
    const next = before.inputs?.find((one) => one.type === "CONDITIONING")
    before = next && nodeBefore(before, next.name)
  }
  return found
}

class Painter {
  constructor(node) {
    this.node = node
    this.frame = element("div", { className: "faceclip-frame", tabIndex: 0, ariaLabel: say("Where the person is") })
    this.hint = element("div", { className: "faceclip-caption" })
    this.stage = element("div", { className: "faceclip-stage" }, this.frame)
    const root = element("div", { className: "faceclip-painter" }, this.stage, this.hint)
    this.frame.addEventListener("pointerdown", (event) => this.start(event))
    this.frame.addEventListener("pointermove", (event) => this.drag(event))
    this.frame.addEventListener("pointerup", () => this.end())
    this.frame.addEventListener("pointercancel", () => this.end())
    this.frame.addEventListener("keydown", (event) => this.onKey(event))
    addElement(node, WIDGET, say("Place"), root, () => HEIGHT)
    for (const name of ["region", ...BOX, "width", "height"]) watchWidget(node, name, () => this.draw())
    this.draw()
  }

  at({ clientX, clientY }) {
    const { left, top, width, height } = this.frame.getBoundingClientRect()
    return [within((clientX - left) / width), within((clientY - top) / height)]
  }

  start(event) {
    if (event.button !== 0 || isWired(this.node, "mask")) return
    this.from = this.at(event)
    this.frame.setPointerCapture(event.pointerId)
  }

  drag(event) {
    if (!this.from) return
    const to = this.at(event)
    const [x, y] = [0, 1].map((i) => Math.min(this.from[i], to[i]))
    const [width, height] = [0, 1].map((i) => Math.abs(this.from[i] - to[i]))
    if (width >= SMALLEST && height >= SMALLEST) this.set([x, y, width, height])
  }

  end() {
    if (this.from) app.extensionManager.workflow.activeWorkflow?.changeTracker?.checkState()
    this.from = null
  }

  // Arrows move the box, with Shift its lower right corner.
  onKey(event) {
    const step = ARROWS[event.key]
    if (!step || isWired(this.node, "mask")) return
    event.preventDefault()
    const box = [...boxOf(this.node)]
    for (const i of [0, 1]) {
      if (event.shiftKey) box[i + 2] = Math.min(1 - box[i], Math.max(SMALLEST, box[i + 2] + step[i]))
      else box[i] = Math.min(1 - box[i + 2], Math.max(0, box[i] + step[i]))
    }
    this.set(box)
  }

  set([x, y, width, height]) {
    const [left, top] = [rounded(x), rounded(y)]
    const box = [left, top, Math.min(1 - left, rounded(width)), Math.min(1 - top, rounded(height))]
    setWidget(this.node, "region", "box")
    for (const [i, name] of BOX.entries()) setWidget(this.node, name, Number(box[i].toFixed(2)))
    this.draw()
  }

  draw() {
    const ratio = numberOf(this.node, "width") / numberOf(this.node, "height") || 1
    this.frame.style.aspectRatio = String(ratio)
    this.frame.style.width = `min(100cqw, 100cqh * ${ratio})`
    const others = earlierPeople(this.node).reverse()
    const masked = isWired(this.node, "mask")
    this.frame.replaceChildren(
      ...others.map((other) => this.drawBox(other, "faceclip-other")),
      ...(masked ? [] : [this.drawBox(this.node, "faceclip-own")]),
    )
    const box = boxOf(this.node).map((part) => `${Math.round(part * 100)} %`)
    const [x, y, width, height] = box
    this.hint.textContent = masked
      ? say("The wired mask says where the person is.")
      : say("{width} × {height}, from {x}, {y}. Drag to draw a box.", { x, y, width, height })
  }

  drawBox(node, className) {
    const [left, top, width, height] = boxOf(node).map((part) => `${part * 100}%`)
    const name = isWired(node, "mask") ? say("{name} (mask)", { name: node.title }) : node.title
    const box = element("div", { className: `faceclip-box ${className}` }, element("span", {}, name))
    Object.assign(box.style, { left, top, width, height })
    return box
  }
}

const painters = new WeakMap()

// A change anywhere may be one of the picture's size or of somebody before.
function drawAll() {
  for (const [node] of allNodes()) painters.get(node)?.draw()
}

app.registerExtension({
  name: "FaceCLIP.Painter",
  setup() {
    api.addEventListener("graphChanged", drawAll)
    document.addEventListener("input", drawAll, true)
  },
  afterConfigureGraph: drawAll,
  nodeCreated(node) {
    if (node.comfyClass === NODE) painters.set(node, new Painter(node))
  },
})
