// Says why a node of this pack stopped, in its own words. The same text stands in red in the node: see text.js. There
// too stands what the server finds wrong with a node before it runs anything.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { isOurs, nodeOf } from "./shared/graph.js"
import { reasonsOf } from "./shared/queue.js"
import { explain } from "./shared/reasons.js"
import { keepRefusal } from "./shared/results.js"

const A_DIALOG_OPENS = 500 // ms
const LIFE = 15000 // ms

// Older front ends open a dialog with the reason by themselves.
const dialogIsOpen = () => !!document.querySelector(".p-dialog, .comfy-modal[style*='block']")

export function tell(summary, detail) {
  app.extensionManager.toast.add({ severity: "error", summary, detail: explain(detail), life: LIFE })
}

// nodeErrors: the server's, by execution id. A prompt of which a part can run is answered with those of the rest.
function showRefusal(nodeErrors, { output, workflow }) {
  const ours = Object.entries(nodeErrors ?? {}).filter(([id]) => isOurs(output[id]?.class_type))
  const texts = ours.map(([id, { errors }]) => [id, reasonsOf(errors)]).filter(([, text]) => text)
  if (texts.length) keepRefusal(workflow, Object.fromEntries(texts))
}

const { queuePrompt } = api
api.queuePrompt = async function (number, prompt, ...more) {
  try {
    const answer = await queuePrompt.call(this, number, prompt, ...more)
    showRefusal(answer.node_errors, prompt)
    return answer
  } catch (error) {
    showRefusal(error.response?.node_errors, prompt)
    throw error
  }
}

app.registerExtension({
  name: "FaceCLIP.Errors",
  setup() {
    api.addEventListener("execution_error", ({ detail }) => {
      if (!isOurs(detail.node_type)) return
      const node = nodeOf(detail.node_id)
      const tellIfNobodyDoes = () => {
        if (!dialogIsOpen()) tell(node?.title ?? detail.node_type, detail.exception_message.trim())
      }
      setTimeout(tellIfNobodyDoes, A_DIALOG_OPENS)
    })
  },
})
