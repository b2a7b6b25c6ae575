// Opens an example with the model that this server has: the published files, converted ones, or the small model.
//
// A template says in `extra.faceclip.small_model` what to change for the small model: [node id, widget, value] each. It
// is taken out as the template opens, so that what the user then saves is an ordinary workflow.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { tell } from "./errors.js"
import { loadersOf, modelFiles, placeSmallModel } from "./shared/model_files.js"
import { say } from "./shared/words.js"

const PACK = new URL(import.meta.url).pathname.split("/extensions/")[1].split("/")[0]
const SMALL_TEMPLATE = "0 Try without weights"

// The host lists a pack's templates in the order of the file system; ours are numbered in the order one learns.
const { getWorkflowTemplates } = api
api.getWorkflowTemplates = async function (...given) {
  const all = await getWorkflowTemplates.apply(this, given)
  all[PACK]?.sort()
  return all
}

function takeMark(workflow) {
  const mark = workflow.extra?.faceclip
  if (mark) delete workflow.extra.faceclip
  return mark?.small_model
}

// Said when the graph is there: the host takes older messages away as it opens one.
let openedSmall = false
function tellOpened() {
  if (openedSmall) {
    app.extensionManager.toast.add({
      severity: "info",
      summary: "FaceCLIP",
      detail: say("Opened with the small model, which draws cartoon people: the published files are not here."),
      life: 8000,
    })
  }
  openedSmall = false
}

async function open(workflow) {
  const changes = takeMark(workflow)
  const status = await modelFiles()
  const loaders = loadersOf(workflow, status.files)
  if (changes && !loaders.length && !status.small) await placeSmallModel() // the small model's own template
  if (changes && status.small && loaders.some(([, file]) => !file.there)) {
    for (const [id, widget, value] of changes) {
      workflow.nodes.find((node) => node.id === id).widgets_values[widget] = value
    }
    openedSmall = true
    return
  }
  for (const [node, file] of loaders) if (file.there) node.widgets_values[0] = file.there
}

async function tryWithoutWeights() {
  try {
    await placeSmallModel()
    const address = `/workflow_templates/${encodeURIComponent(PACK)}/${encodeURIComponent(SMALL_TEMPLATE)}.json`
    const workflow = await (await api.fetchApi(address)).json()
    await app.loadGraphData(workflow, true, true, SMALL_TEMPLATE)
    await app.queuePrompt(0, 1)
  } catch (error) {
    tell(say("Try without weights"), error.message)
  }
}

app.registerExtension({
  name: "FaceCLIP.Templates",
  commands: [
    {
      id: "FaceCLIP.TryWithoutWeights",
      label: "Try FaceCLIP without weights",
      icon: "pi pi-user",
      function: tryWithoutWeights,
    },
  ],
  menuCommands: [{ path: ["FaceCLIP"], commands: ["FaceCLIP.TryWithoutWeights"] }],
  async beforeConfigureGraph(workflow) {
    try {
      await open(workflow)
    } catch (error) {
      tell("FaceCLIP", error.message)
    }
  },
  afterConfigureGraph: tellOpened,
})
