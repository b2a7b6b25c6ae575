// What our nodes gave, for as long as their inputs are what they were.
//
// A result is shown in every node of the open workflow that has the inputs it was made from, and in no other. So it is
// there again after another tab, a page reload or a run that the server answered from its cache, and in a second graph,
// and it goes as soon as something that it depends on is changed.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { allNodes, locatorOf, nodeOf } from "./graph.js"
import { Signatures } from "./signature.js"

const MOST_JOBS = 20
const SETTLE = 150 // ms

const viewers = []
const jobs = new Map() // prompt id -> promise of a Job, oldest first
const shown = new WeakMap() // node -> Map of viewer -> result shown

class Job {
  constructor(workflow = {}) {
    this.signatures = new Signatures(workflow)
    this.facesOnly = !!workflow.extra?.faceclip_find_faces
    this.results = new Map() // execution id -> {output} or {error}
    this.byViewer = new Map()
  }

  add(executionId, result) {
    this.results.set(String(executionId), result)
    this.byViewer.clear()
  }

  // What there is for a viewer to show of a node with these inputs.
  find(viewer, signature) {
    if (!this.byViewer.has(viewer)) {
      const all = [...this.results].map(([id, result]) => [this.signatures.of(id, viewer.leaveOut), result])
      this.byViewer.set(viewer, new Map(all))
    }
    const result = this.byViewer.get(viewer).get(signature)
    // Find faces has chosen none yet: what it says of face 0 may be wrong.
    if (this.facesOnly && !viewer.showsFacesOnly && result?.output?.faceclip_faces) return undefined
    return result
  }
}

// Has the results of some nodes shown. A viewer is
//   nodes: class names.
//   key: of the node's output, what is shown.
//   leaveOut: names of inputs that what is shown does not depend on.
//   show(node, output, error): error is the text of what went wrong instead, and output then empty.
//   clear(node): the node's inputs are others now.
//   showsPictures: it shows the output's pictures too, so the host's own preview of them is left out.
//   showsFacesOnly: it also shows what Find faces brought.
export function addViewer(viewer) {
  viewers.push({ leaveOut: [], ...viewer })
}

let waiting = null
export function refreshSoon() {
  clearTimeout(waiting)
  waiting = setTimeout(refresh, SETTLE)
}

async function refresh() {
  const ready = await Promise.all(jobs.values())
  const newestFirst = ready.reverse()
  const places = [...allNodes()]
  if (!places.some(([node]) => viewers.some((viewer) => viewer.nodes.includes(node.comfyClass)))) return
  const now = new Signatures(app.rootGraph.serialize())
  for (const viewer of viewers) {
    const found = new Map()
    for (const [node, id] of places) {
      if (!viewer.nodes.includes(node.comfyClass)) continue
      const signature = now.of(id, viewer.leaveOut)
      const result = newestFirst.map((job) => job.find(viewer, signature)).find(Boolean)
      if (result || !found.has(node)) found.set(node, result)
    }
    for (const [node, result] of found) present(viewer, node, result)
  }
}

function present(viewer, node, result) {
  const output = result?.output?.[viewer.key] ? result.output : undefined
  const error = result?.error
  const before = shown.get(node) ?? new Map()
  shown.set(node, before)
  const wanted = output || error ? result : undefined
  if (before.get(viewer) === wanted) return
  before.set(viewer, wanted)
  if (wanted) viewer.show(node, output ?? {}, error)
  else viewer.clear(node)
}

// The workflow that was queued: of the running prompt, or of one that is done already.
async function workflowOf(promptId) {
  const { queue_running = [] } = await (await api.fetchApi("/queue")).json()
  const running = queue_running.find((item) => item[1] === promptId)
  if (running) return running[3]?.extra_pnginfo?.workflow
  const history = await (await api.fetchApi(`/history/${promptId}`)).json()
  return history[promptId]?.prompt[3]?.extra_pnginfo?.workflow
}

function jobOf(promptId) {
  if (!jobs.has(promptId)) {
    jobs.set(
      promptId,
      workflowOf(promptId).then((workflow) => new Job(workflow)),
    )
    if (jobs.size > MOST_JOBS) jobs.delete(jobs.keys().next().value)
  }
  return jobs.get(promptId)
}

async function keep(promptId, executionId, result) {
  const job = await jobOf(promptId)
  job.add(executionId, result)
  refreshSoon()
}

// What was wrong with nodes of a workflow that the server refused: {execution id: text}.
let refusals = 0
export function keepRefusal(workflow, texts) {
  const job = new Job(workflow)
  for (const [id, error] of Object.entries(texts)) job.add(id, { error })
  jobs.set(`refused ${++refusals}`, Promise.resolve(job))
  if (jobs.size > MOST_JOBS) jobs.delete(jobs.keys().next().value)
  refreshSoon()
}

// The host would show the pictures a second time.
function hidePreview(executionId, output) {
  delete output.images
  const node = nodeOf(executionId)
  const kept = node && app.nodeOutputs[locatorOf(node)] // newer front ends keep a copy
  if (kept?.images) delete kept.images
}

// After a reload of the page: what the server remembers, for our nodes and as pictures of all others.
async function readHistory() {
  const history = await (await api.fetchApi(`/history?max_items=${MOST_JOBS}`)).json()
  for (const [promptId, { prompt, outputs }] of Object.entries(history)) {
    const job = new Job(prompt[3]?.extra_pnginfo?.workflow)
    for (const [id, output] of Object.entries(outputs)) job.add(id, { output })
    if (!jobs.has(promptId)) jobs.set(promptId, Promise.resolve(job))
  }
}

app.registerExtension({
  name: "FaceCLIP.Results",
  async setup() {
    api.addEventListener("execution_start", ({ detail }) => jobOf(detail.prompt_id))
    api.addEventListener("executed", ({ detail }) => {
      const id = detail.display_node ?? detail.node
      keep(detail.prompt_id, id, { output: { ...detail.output } })
      if (viewers.some((viewer) => viewer.showsPictures && detail.output?.[viewer.key])) hidePreview(id, detail.output)
    })
    api.addEventListener("execution_error", ({ detail }) => {
      keep(detail.prompt_id, detail.node_id, { error: detail.exception_message.trim() })
    })
    api.addEventListener("graphChanged", refreshSoon)
    document.addEventListener("input", refreshSoon, true)
    await readHistory()
    refreshSoon()
  },
  afterConfigureGraph: refreshSoon,
})
