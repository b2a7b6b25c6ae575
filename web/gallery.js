// Saved identities as pictures, in Load Identity: choose, rename, delete, and bring in files from elsewhere.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { tell } from "./errors.js"
import { ask, askForText, askWhether } from "./shared/ask.js"
import { addElement, element, fit } from "./shared/dom.js"
import { setWidget, watchWidget, widgetOf } from "./shared/graph.js"
import { addViewer } from "./shared/results.js"
import { say } from "./shared/words.js"

const NODE = "FaceCLIPLoadIdentity"
const WIDGET = "faceclip_gallery"
const FILE = "file"
const HEIGHT = 230 // px
const MOST_REFERENCES = 8
const ENCODER_DIGITS = 8

const url = (file, reference = 0) =>
  api.apiURL(`/faceclip/identities/picture?${new URLSearchParams({ file, reference })}`)

class Gallery {
  constructor(node) {
    this.node = node
    this.people = []
    this.grid = element("div", { className: "faceclip-grid", role: "listbox", ariaLabel: say("Saved people") })
    this.details = element("div", { className: "faceclip-details" })
    this.root = element("div", { className: "faceclip-gallery" }, this.grid, this.details)
    this.root.addEventListener("dragover", (event) => this.onDrag(event))
    this.root.addEventListener("dragleave", () => this.root.classList.remove("faceclip-drop"))
    this.root.addEventListener("drop", (event) => this.onDrop(event))
    this.widget = addElement(node, WIDGET, say("Saved people"), this.root, () => HEIGHT)
    watchWidget(node, FILE, () => this.draw())
    const { onConfigure } = node
    node.onConfigure = function (...given) {
      onConfigure?.apply(this, given)
      galleries.get(node).draw()
    }
    this.load()
  }

  get file() {
    return widgetOf(this.node, FILE).value
  }

  async load() {
    this.people = await ask("identities")
    this.draw()
    fit(this.node, this.widget)
  }

  draw() {
    this.grid.replaceChildren(...(this.people.length ? this.people.map((one) => this.drawOne(one)) : [this.drawHint()]))
    const chosen = this.people.find((one) => one.file === this.file)
    this.details.replaceChildren(...(chosen ? this.drawDetails(chosen) : []), this.drawAdd())
  }

  drawHint() {
    const text = say(
      "Nobody is saved yet. Save Identity keeps a person here; a file from elsewhere can be dropped here.",
    )
    return element("div", { className: "faceclip-hint" }, text)
  }

  drawOne({ file, name, problem }) {
    const picture = element("img", { src: url(file), alt: "", draggable: false })
    const button = element("button", { className: "faceclip-person", title: problem || name, role: "option" })
    button.append(
      problem ? element("span", { className: "faceclip-missing" }, "!") : picture,
      element("span", {}, name),
    )
    button.ariaSelected = String(file === this.file)
    button.onclick = () => this.choose(file)
    return button
  }

  drawDetails({ file, references, encoder, problem, name }) {
    const count = Math.min(references, MOST_REFERENCES)
    const pictures = Array.from({ length: count }, (_, i) => element("img", { src: url(file, i), alt: "" }))
    const code = encoder.slice(0, ENCODER_DIGITS)
    const told = references === 1 ? "1 reference, encoder {code}" : "{count} references, encoder {code}"
    const text = problem || say(told, { count: references, code })
    const act = (label, does) => element("button", { className: "faceclip-button", onclick: does }, say(label))
    return [
      element("div", { className: "faceclip-references" }, ...pictures),
      element("div", { className: problem ? "faceclip-warning" : "", title: encoder }, text),
      act("Rename", () => this.rename(file, name)),
      act("Delete", () => this.remove(file, name)),
    ]
  }

  drawAdd() {
    const input = element("input", { type: "file", accept: ".safetensors", multiple: true, hidden: true })
    input.onchange = () => this.add(input.files)
    const button = element("button", { className: "faceclip-button", onclick: () => input.click() }, say("Add a file"))
    return element("span", {}, button, input)
  }

  choose(file) {
    setWidget(this.node, FILE, file)
    this.draw()
    app.extensionManager.workflow.activeWorkflow?.changeTracker?.checkState()
  }

  async rename(file, name) {
    const wanted = await askForText(say("Rename {name}", { name }), say("The new name"), name)
    if (!wanted || wanted === name) return
    await this.change(async () => (await ask("identities/rename", { file, name: wanted })).file)
  }

  async remove(file, name) {
    const question = say("Delete the saved identity {name}? Its file is removed from the disk for good.", { name })
    if (!(await askWhether(say("Delete {name}", { name }), question, "delete"))) return
    await this.change(async () => {
      await ask("identities/delete", { file })
      return this.people.find((one) => one.file !== file)?.file ?? ""
    })
  }

  async add(files) {
    for (const file of files) {
      const form = new FormData()
      form.append("file", file, file.name)
      await this.change(async () => (await ask("identities/add", form)).file)
    }
  }

  // Shows the change in all galleries; `does` returns the file to choose in this one.
  async change(does) {
    try {
      const file = await does()
      await loadAll()
      this.choose(file)
    } catch (error) {
      tell(this.node.title, error.message)
    }
  }

  onDrag(event) {
    event.preventDefault()
    event.stopPropagation()
    this.root.classList.add("faceclip-drop")
  }

  onDrop(event) {
    this.onDrag(event)
    this.root.classList.remove("faceclip-drop")
    this.add(event.dataTransfer.files)
  }
}

const galleries = new Map()

async function loadAll() {
  await app.refreshComboInNodes() // the list of files, for all nodes
  await Promise.all([...galleries.values()].map((gallery) => gallery.load()))
}

// The gallery shows the pictures, so the host's preview of them is left out.
addViewer({ nodes: [NODE], key: "faceclip_identity", showsPictures: true, show: () => {}, clear: () => {} })

app.registerExtension({
  name: "FaceCLIP.Gallery",
  setup() {
    api.addEventListener("executed", ({ detail }) => {
      if (detail.output?.faceclip_saved) loadAll()
    })
  },
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return
    galleries.set(node, new Gallery(node))
    const { onRemoved } = node
    node.onRemoved = function (...given) {
      galleries.delete(node)
      onRemoved?.apply(this, given)
    }
  },
})
