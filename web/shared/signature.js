// What a node's result depends on: its own values and those of everything that feeds it, as one number.
//
// Read from a workflow as it is saved, so that the one that was queued and the one that is open can be compared,
// whatever ids their nodes have. Equal numbers mean equal inputs. A seed that changes by itself after each run counts
// for nothing, else a result would be out of date as soon as it was there.

const CHANGES_BY_ITSELF = ["randomize", "increment", "decrement", "increment-wrap"]
// What these find lies outside of the graph: their result is that of one node and run.
const LOOK_OUTSIDE = ["FaceCLIPDoctor"]
const WIDGETS = ["INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"]
const SUBGRAPH_INPUT = -10
const SUBGRAPH_OUTPUT = -20

const numbers = new Map()

function numberOf(value) {
  const text = JSON.stringify(value)
  if (!numbers.has(text)) numbers.set(text, numbers.size + 1)
  return numbers.get(text)
}

// A link of the root graph is a list, one inside a subgraph an object.
function link(saved) {
  if (!Array.isArray(saved)) return saved
  const [id, origin_id, origin_slot, target_id, target_slot] = saved
  return { id, origin_id, origin_slot, target_id, target_slot }
}

class Graph {
  constructor({ nodes, links, inputs }) {
    this.inputs = inputs ?? []
    this.nodes = new Map((nodes ?? []).map((node) => [String(node.id), node]))
    this.links = new Map((links ?? []).map(link).map((one) => [one.id, one]))
  }

  linkToOutput(slot) {
    const here = (one) => one.target_id === SUBGRAPH_OUTPUT && one.target_slot === slot
    return [...this.links.values()].find(here)?.id
  }
}

// Names of a node class's widgets, in the order of their saved values.
function widgetsOf(type) {
  const { required, optional } = LiteGraph.registered_node_types[type]?.nodeData?.input ?? {}
  const isWidget = ([, [kind]]) => Array.isArray(kind) || WIDGETS.includes(kind)
  return Object.entries({ ...required, ...optional })
    .filter(isWidget)
    .map(([name]) => name)
}

function valuesOf({ type, widgets_values: values }, leaveOut) {
  if (!Array.isArray(values)) return values ?? []
  const names = leaveOut.length ? widgetsOf(type) : []
  const ignored = (value, place) =>
    leaveOut.includes(names[place]) || (typeof value === "number" && CHANGES_BY_ITSELF.includes(values[place + 1]))
  return values.map((value, place) => (ignored(value, place) ? null : value))
}

export class Signatures {
  // workflow: as the front end saves it and sends it with a prompt.
  constructor(workflow) {
    this.root = new Graph(workflow)
    this.subgraphs = new Map((workflow.definitions?.subgraphs ?? []).map((one) => [one.id, new Graph(one)]))
    this.known = new Map()
  }

  // The number for a node, by its execution id ("5:3" inside a subgraph); null where there is no such node.
  // leaveOut: names of its inputs that do not count.
  of(executionId, leaveOut = []) {
    const path = []
    let graph = this.root
    const steps = String(executionId).split(":")
    for (const step of steps.slice(0, -1)) {
      const node = graph?.nodes.get(step)
      path.push({ graph, node })
      graph = this.subgraphs.get(node?.type)
    }
    const node = graph?.nodes.get(steps.at(-1))
    if (!node) return null
    const number = this.#node(path, graph, node, leaveOut)
    return LOOK_OUTSIDE.includes(node.type) ? numberOf([number, executionId]) : number
  }

  #node(path, graph, node, leaveOut = []) {
    const key = JSON.stringify([path.map((one) => one.node.id), node.id, leaveOut])
    if (!this.known.has(key)) {
      this.known.set(key, 0) // what a circle comes back to
      const inputs = (node.inputs ?? [])
        .filter((input) => input.link != null && !leaveOut.includes(input.name)) // a queued workflow has no others
        .map((input) => [input.name, this.#origin(path, graph, input.link)])
      this.known.set(key, numberOf([node.type, node.mode ?? 0, valuesOf(node, leaveOut), inputs]))
    }
    return this.known.get(key)
  }

  // What comes through a link: through the edge of a subgraph too, in either direction.
  #origin(path, graph, id) {
    const one = graph.links.get(id)
    if (!one) return null
    if (one.origin_id === SUBGRAPH_INPUT) return this.#outside(path, graph, one.origin_slot)
    const node = graph.nodes.get(String(one.origin_id))
    if (!node) return null
    const inner = this.subgraphs.get(node.type)
    if (!inner) return [this.#node(path, graph, node), one.origin_slot]
    return this.#origin([...path, { graph, node }], inner, inner.linkToOutput(one.origin_slot))
  }

  #outside(path, graph, slot) {
    const outer = path.at(-1)
    const name = graph.inputs[slot]?.name
    const input = outer.node.inputs?.find((one) => one.name === name) ?? outer.node.inputs?.[slot]
    const fed = this.#origin(path.slice(0, -1), outer.graph, input?.link)
    return fed ?? ["widget", name, outer.node.widgets_values ?? []]
  }
}
