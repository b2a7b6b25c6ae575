// Nodes of the open workflow, those inside subgraphs too.

import { app } from "../../../scripts/app.js"

// [node, execution id] of every node; inside the subgraph node 5, node 3 is "5:3". A subgraph that is used twice gives
// its nodes twice.
export function* allNodes(graph = app.rootGraph, path = "") {
  for (const node of graph?.nodes ?? []) {
    const id = `${path}${node.id}`
    yield [node, id]
    if (node.isSubgraphNode?.()) yield* allNodes(node.subgraph, `${id}:`)
  }
}

export const isOurs = (comfyClass) => !!comfyClass?.startsWith("FaceCLIP")

export function nodeOf(executionId) {
  for (const [node, id] of allNodes()) if (id === String(executionId)) return node
  return null
}

export function executionIdsOf(node) {
  const same = (other) => other.id === node.id && other.graph.id === node.graph.id // newer front ends wrap nodes
  return [...allNodes()].filter(([other]) => same(other)).map(([, id]) => id)
}

// The name that the host keeps a node's output by.
export function locatorOf(node) {
  return node.graph === app.rootGraph ? String(node.id) : `${node.graph.id}:${node.id}`
}

export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name)
}

// Takes a widget out of sight; its value is saved and queued as before.
export function hideWidget(node, name) {
  const widget = widgetOf(node, name)
  widget.hidden = true
  widget.options.hidden = true // for older front ends' Nodes 2.0
  widget.computeSize = () => [0, -4] // and their canvas, which adds 4 px to each
}

// Sets a widget as its user would.
export function setWidget(node, name, value) {
  const widget = widgetOf(node, name)
  widget.value = value
  widget.callback?.(value, app.canvas, node)
  node.setDirtyCanvas(true, true)
}

// Calls `changed` after the widget's value was set by its user.
export function watchWidget(node, name, changed) {
  const widget = widgetOf(node, name)
  const { callback } = widget
  widget.callback = function (...given) {
    const answer = callback?.apply(this, given)
    changed(widget.value)
    return answer
  }
}
