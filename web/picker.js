// Choose a face by eye: Find faces runs Align Face and what it needs, and the faces found can be clicked in the photo.
// Of several photos each has a page and a face of its own.

import { app } from "../../scripts/app.js"
import { tell } from "./errors.js"
import { addElement, element, fit, pictureUrl } from "./shared/dom.js"
import { executionIdsOf, hideWidget, setWidget, watchWidget, widgetOf } from "./shared/graph.js"
import { reasonOf, run, upTo } from "./shared/queue.js"
import { addViewer } from "./shared/results.js"
import { say } from "./shared/words.js"

const NODE = "FaceCLIPAlignFace"
const WIDGET = "faceclip_picker"
const ONE_FOR_ALL = "input_faces_index"
const ONE_EACH = "chosen_faces"
const EMPTY_HEIGHT = 34 // px
const HEIGHT = 250
const TAG_HEIGHT = 0.1 // of the photo, at most

class Picker {
  constructor(node) {
    this.node = node
    this.photos = []
    this.page = 0
    this.button = element(
      "button",
      { className: "faceclip-button", onclick: () => this.findFaces() },
      say("Find faces"),
    )
    this.pager = element("span", { className: "faceclip-pager" })
    this.stage = element("div", { className: "faceclip-stage" })
    this.caption = element("div", { className: "faceclip-caption" })
    const bar = element("div", { className: "faceclip-bar" }, this.button, this.pager)
    this.root = element("div", { className: "faceclip-picker" }, bar, this.stage, this.caption)
    this.root.addEventListener("keydown", (event) => this.onKey(event))
    this.widget = addElement(node, WIDGET, say("Faces"), this.root, () => (this.photos.length ? HEIGHT : EMPTY_HEIGHT))
    hideWidget(node, ONE_EACH)
    watchWidget(node, ONE_FOR_ALL, () => this.onNumber())
    watchWidget(node, "input_faces_order", () => setWidget(node, ONE_EACH, ""))
  }

  async findFaces() {
    const { node } = this
    const id = executionIdsOf(node)[0]
    this.button.disabled = true
    try {
      const { output, workflow } = await app.graphToPrompt()
      if (!output[id]) throw new Error(say("The node is bypassed or muted."))
      // Whatever number stands there now: it may be past the last face of this photo.
      Object.assign(output[id].inputs, { [ONE_FOR_ALL]: 0, [ONE_EACH]: "" })
      const marked = { ...workflow, extra: { ...workflow.extra, faceclip_find_faces: true } }
      await run(upTo(output, id), marked, id)
    } catch (error) {
      tell(node.title, reasonOf(error))
    } finally {
      this.button.disabled = false
    }
  }

  // photos: what Align Face says of each.
  show(photos) {
    this.photos = photos
    this.page = Math.min(this.page, Math.max(0, photos.length - 1))
    this.draw()
    fit(this.node, this.widget)
  }

  // The face of each photo.
  get chosen() {
    const each = String(widgetOf(this.node, ONE_EACH).value).match(/\d+/g)?.map(Number) ?? []
    const all = each.length === 1 ? each[0] : (widgetOf(this.node, ONE_FOR_ALL).value ?? 0)
    return this.photos.map((_, page) => (each.length === this.photos.length ? each[page] : all))
  }

  choose(face) {
    const { node } = this
    const chosen = this.chosen.with(this.page, face)
    const linked = node.inputs?.find((input) => input.name === ONE_FOR_ALL)?.link != null
    const same = chosen.every((one) => one === face)
    this.choosing = true
    if (same && !linked) setWidget(node, ONE_FOR_ALL, face)
    setWidget(node, ONE_EACH, same && !linked ? "" : chosen.join(", "))
    this.choosing = false
    this.draw()
    app.extensionManager.workflow.activeWorkflow?.changeTracker?.checkState()
  }

  // The number in the node was changed: it is for all photos.
  onNumber() {
    if (this.choosing) return
    setWidget(this.node, ONE_EACH, "")
    this.draw()
  }

  turn(by) {
    this.page = (this.page + by + this.photos.length) % this.photos.length
    this.draw()
  }

  onKey(event) {
    const faces = this.photos[this.page]?.faces.length ?? 0
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }
    if (event.key in steps && faces) this.choose((this.chosen[this.page] + steps[event.key] + faces) % faces)
    else if (/^\d$/.test(event.key) && Number(event.key) < faces) this.choose(Number(event.key))
    else if (event.key === "PageDown" && faces) this.turn(1)
    else if (event.key === "PageUp" && faces) this.turn(-1)
    else return
    event.preventDefault()
  }

  draw() {
    const photo = this.photos[this.page]
    const hasFocus = this.stage.contains(document.activeElement)
    this.pager.replaceChildren(...(this.photos.length > 1 ? this.drawPager() : []))
    this.stage.replaceChildren(...(photo ? [this.drawPhoto(photo)] : []))
    this.caption.replaceChildren(...(photo ? this.drawCaption(photo) : []))
    this.root.classList.toggle("faceclip-empty", !photo)
    if (hasFocus) this.stage.querySelector("[aria-pressed=true]")?.focus({ preventScroll: true })
  }

  drawPager() {
    const turn = (by, sign, label) =>
      element("button", { className: "faceclip-button", ariaLabel: say(label), onclick: () => this.turn(by) }, sign)
    const place = say("photo {page} of {pages}", { page: this.page + 1, pages: this.photos.length })
    return [turn(-1, "◀", "previous photo"), place, turn(1, "▶", "next photo")]
  }

  drawPhoto({ photo, width, height, faces }) {
    const chosen = this.chosen[this.page]
    const frame = element("div", { className: "faceclip-photo" })
    frame.style.aspectRatio = `${width} / ${height}`
    frame.style.width = `min(100cqw, 100cqh * ${width / height})`
    frame.append(element("img", { src: pictureUrl(photo), draggable: false, alt: "" }))
    for (const [number, { box, score, warnings }] of faces.entries()) {
      const [left, top, wide, high] = box.map((part) => `${part * 100}%`)
      const sides = [box[1] > TAG_HEIGHT ? "above" : "", box[0] > 0.7 ? "leftwards" : ""]
      const label = say("face {number}, score {score}", { number, score: score.toFixed(2) })
      const button = element(
        "button",
        { className: "faceclip-face", title: [label, ...warnings].join("\n"), onclick: () => this.choose(number) },
        element(
          "span",
          { className: sides.join(" ") },
          `${number} · ${score.toFixed(2)}${warnings.length ? " !" : ""}`,
        ),
      )
      Object.assign(button.style, { left, top, width: wide, height: high })
      button.ariaPressed = String(number === chosen)
      frame.append(button)
    }
    return frame
  }

  drawCaption({ faces }) {
    const number = this.chosen[this.page]
    const face = faces[number]
    if (!face) return [say("Face {number} is not there: {count} found. Click one.", { number, count: faces.length })]
    const [width, height] = face.size
    const score = face.score.toFixed(2)
    const values = { number, count: faces.length, score, width, height }
    const line = say("face {number} of {count}, score {score}, {width} × {height} px", values)
    return [line, ...face.warnings.map((warning) => element("div", { className: "faceclip-warning" }, `! ${warning}`))]
  }
}

const pickers = new WeakMap()
addViewer({
  nodes: [NODE],
  key: "faceclip_faces",
  leaveOut: [ONE_FOR_ALL, ONE_EACH, "margin", "on_no_face"],
  showsPictures: true,
  showsFacesOnly: true,
  show: (node, output) => pickers.get(node).show(output.faceclip_faces ?? []),
  clear: (node) => pickers.get(node).show([]),
})

app.registerExtension({
  name: "FaceCLIP.Picker",
  nodeCreated(node) {
    if (node.comfyClass === NODE) pickers.set(node, new Picker(node))
  },
})
