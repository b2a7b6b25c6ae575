// A panel that brings the published model files: size, licence and folder of each, consent, progress, stop and resume.
//
// The server downloads, so a page that is closed changes nothing. It does so only for a person at its own machine;
// elsewhere the panel shows the command. A message offers the panel when a workflow opens whose files are missing.

import { app } from "../../scripts/app.js"
import { element } from "./shared/dom.js"
import { allNodes, widgetOf } from "./shared/graph.js"
import { askForDownload, loadersOf, modelFiles } from "./shared/model_files.js"
import { say } from "./shared/words.js"

const EVERY = 1000 // ms between two looks at a download
const MIB = 2 ** 20

let panel = null
let offer = null

const running = ({ download }) => ["downloading", "stopping"].includes(download?.state)
const usesYuNet = (node) => node.comfyClass === "FaceCLIPDetectorLoader" && widgetOf(node, "detector").value === "YuNet"
const inMib = (bytes) => `${(bytes / MIB).toFixed(bytes < 10 * MIB ? 1 : 0)} MB`

function stateOf(file) {
  const { state, here, total, error } = file.download ?? {}
  if (file.there) return say("Here as {name}.", { name: file.there })
  if (state === "failed") return error
  if (state === "stopping") return say("Stopping ...")
  if (state === "stopped") return say("Stopped at {here}. Download goes on from there.", { here: inMib(here) })
  if (state !== "downloading") return ""
  if (!total) return say("Asking for the file ...")
  if (here >= total) return say("Checking that it is the published file ...")
  return say("{here} of {total}", { here: inMib(here), total: inMib(total) })
}

function button(text, action, properties = {}) {
  return element("button", { type: "button", textContent: text, onclick: action, ...properties })
}

class Row {
  constructor(file, local, changed) {
    this.file = file
    this.accepted = element("input", { type: "checkbox", onchange: () => this.draw() })
    this.state = element("p", { className: "faceclip-state" })
    this.bar = element("progress", { max: 1 })
    this.action = button("", () => this.act(changed))
    const about = element("p", { textContent: `${file.about}. ${say("Folder: models/{folder}.", file)} ` })
    about.append(element("a", { href: file.page, target: "_blank", rel: "noopener", textContent: say("Page") }))
    this.consent = element("label", {}, this.accepted, ` ${say("I accept the licence: {licence}", file)}`)
    const asked = local ? [this.consent, this.action] : [element("code", { textContent: file.command })]
    this.asked = element("div", {}, ...asked)
    this.root = element(
      "li",
      {},
      element("strong", { textContent: file.needed ? file.name : say("{name} (optional)", file) }),
      about,
      this.asked,
      this.bar,
      this.state,
    )
    this.root.dataset.file = file.key
    this.draw()
  }

  async act(changed) {
    const stop = running(this.file)
    this.action.disabled = true
    try {
      await askForDownload(this.file.key, stop ? { stop } : { accepted: this.accepted.checked })
    } catch (error) {
      this.state.textContent = error.message
      return
    }
    changed()
  }

  draw(file = this.file) {
    this.file = file
    const busy = running(file)
    this.asked.hidden = !!file.there
    this.consent.hidden = busy
    this.bar.hidden = !busy
    this.bar.value = file.download?.total ? file.download.here / file.download.total : 0
    this.action.textContent = say(busy ? "Stop" : "Download")
    this.action.disabled = busy ? file.download.state === "stopping" : !this.accepted.checked
    this.state.textContent = stateOf(file)
    this.state.classList.toggle("faceclip-error", file.download?.state === "failed" && !file.there)
  }
}

async function follow(rows, wasBusy) {
  if (!panel?.isConnected) return
  const { files } = await modelFiles()
  for (const row of rows) row.draw(files.find((file) => file.key === row.file.key))
  const busy = files.some(running)
  if (wasBusy && !busy) await app.refreshComboInNodes() // what arrived is in the loaders' lists
  if (busy) setTimeout(() => follow(rows, true), EVERY)
}

async function openPanel() {
  panel?.remove()
  offer?.remove()
  const { files, local } = await modelFiles()
  const note = local
    ? "Nothing is downloaded before you accept a licence and press Download. A download goes on when this page is closed."
    : "Only a person at the server's own machine can have it download. There, in the folder of ComfyUI-FaceCLIP:"
  const rows = files.map((file) => new Row(file, local, () => follow(rows, true)))
  const list = element("ul", {}, ...rows.map((row) => row.root))
  const close = button(say("Close"), () => panel.remove())
  panel = element("dialog", { className: "faceclip faceclip-files", open: true, ariaLabel: say("Get the files") })
  panel.append(
    element("h2", { textContent: say("Get the files") }),
    element("p", { textContent: say(note) }),
    list,
    close,
  )
  panel.addEventListener("keydown", (event) => event.stopPropagation())
  document.body.append(panel)
  follow(rows, false)
}

async function offerPanel() {
  offer?.remove()
  const { files } = await modelFiles()
  const asked = loadersOf(app.rootGraph.serialize(), files).map(([, file]) => file)
  if ([...allNodes()].some(([node]) => usesYuNet(node))) asked.push(files.find((file) => file.key === "yunet"))
  const names = [...new Set(asked.filter((file) => !file.there).map((file) => file.name))].join(", ")
  if (!names) return
  offer = element("div", { className: "faceclip faceclip-offer", role: "status" })
  const close = button("×", () => offer.remove(), { ariaLabel: say("Close") })
  const missing = say("FaceCLIP's files are missing: {names}.", { names })
  offer.append(missing, button(say("Get the files"), openPanel), close)
  document.body.append(offer)
}

app.registerExtension({
  name: "FaceCLIP.Files",
  commands: [{ id: "FaceCLIP.GetFiles", label: "Get FaceCLIP's files", icon: "pi pi-download", function: openPanel }],
  menuCommands: [{ path: ["FaceCLIP"], commands: ["FaceCLIP.GetFiles"] }],
  afterConfigureGraph: () => offerPanel().catch(() => {}),
})
