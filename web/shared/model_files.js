// Which of the published files the server has, and the small model that comes along.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"

// {files: [{key, name, there, ...}], small: whether the small model is in place, local: whether we may download}
export async function modelFiles() {
  return (await api.fetchApi("/faceclip/files")).json()
}

// Has the server copy the pack's small model to where its loaders look. Throws an Error with the reason.
export async function placeSmallModel() {
  const answer = await api.fetchApi("/faceclip/small_model", { method: "POST" })
  if (!answer.ok) throw new Error((await answer.json()).error)
  await app.refreshComboInNodes() // else the loaders' lists lack the new files
}

// Has the server begin a download ({accepted: true}) or stop it ({stop: true}). Throws an Error with the reason.
export async function askForDownload(key, what) {
  const body = JSON.stringify({ key, ...what })
  const headers = { "Content-Type": "application/json" }
  const answer = await api.fetchApi("/faceclip/download", { method: "POST", headers, body })
  if (!answer.ok) throw new Error((await answer.json()).error)
}

// Class of a loader -> key of the published file that its first value may name.
const LOADERS = { FaceCLIPLoader: "encoder", FaceCLIPUNETLoader: "unet", VAELoader: "vae" }

function* savedNodes(workflow) {
  yield* workflow.nodes ?? []
  for (const subgraph of workflow.definitions?.subgraphs ?? []) yield* subgraph.nodes ?? []
}

// [node, file] of every loader in a saved workflow that asks for a published file by its published name.
export function loadersOf(workflow, files) {
  const nodes = [...savedNodes(workflow)]
  if (!nodes.some((node) => node.type?.startsWith("FaceCLIP"))) return []
  return nodes
    .map((node) => [node, files.find((file) => file.key === LOADERS[node.type])])
    .filter(([node, file]) => file && node.widgets_values?.[0] === file.name)
}
