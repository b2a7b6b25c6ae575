// Runs a part of the open workflow.

import { api } from "../../../scripts/api.js"
import { say } from "./words.js"

const FIRST = -1 // the place in the queue

const ended = new Set() // prompt ids
const waiting = new Map() // prompt id -> what to call when it is over
for (const name of ["execution_success", "execution_error", "execution_interrupted"]) {
  api.addEventListener(name, ({ detail }) => {
    ended.add(detail.prompt_id) // which may come before the answer to the request
    waiting.get(detail.prompt_id)?.()
  })
}

const isLink = (value) => Array.isArray(value) && value.length === 2 && typeof value[1] === "number"

// What one node of a prompt needs, and the node itself.
export function upTo(prompt, id) {
  const needed = {}
  const visit = (one) => {
    if (one in needed || !(one in prompt)) return
    needed[one] = prompt[one]
    for (const value of Object.values(prompt[one].inputs)) if (isLink(value)) visit(String(value[0]))
  }
  visit(id)
  return needed
}

// Queues a prompt before all others, of which one node is to run; resolves when it is over, rejects when it is refused.
export async function run(output, workflow, id) {
  const { prompt_id } = await api.queuePrompt(FIRST, { output, workflow }, { partialExecutionTargets: [id] })
  if (!ended.has(prompt_id)) await new Promise((over) => waiting.set(prompt_id, over))
  waiting.delete(prompt_id)
}

// One of the server's errors about an input, in plain words.
function plain({ type, message, details, extra_info: { input_name: input, received_value: value } = {} }) {
  if (type === "required_input_missing") {
    return say("Nothing arrives at {input}, which is needed. Connect something to it.", { input: input ?? details })
  }
  if (type === "value_not_in_list") {
    return say("{input} is {value}, which is not there to choose. Choose another.", { input, value: String(value) })
  }
  if (type === "custom_validation_failed") return details.replace(`${input} - `, "") // the node's own words
  return [message, details].filter(Boolean).join(": ")
}

export const reasonsOf = (errors) => (errors ?? []).map(plain).join("\n")

// Why the server refused a prompt.
export function reasonOf(error) {
  const { node_errors: byNode = {}, error: whole } = error.response ?? {}
  const first = Object.values(byNode).flatMap((one) => one.errors ?? [])[0] ?? whole
  return (first && plain(first)) || String(error.message ?? error)
}
