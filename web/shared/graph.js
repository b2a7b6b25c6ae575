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

export function nodeOf(executionId) {
  for (const [node, id] of allNodes()) if (id === String(executionId)) return node
  return null
}

export function executionIdsOf(node) {
  return [...allNodes()].filter(([other]) => other === node).map(([, id]) => id)
}

export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name)
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
