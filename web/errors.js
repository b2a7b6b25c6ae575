// Says why a node of this pack stopped, in its own words. The same text stands in red in the node: see text.js.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { isOurs, nodeOf } from "./shared/graph.js"

const A_DIALOG_OPENS = 500 // ms
const LIFE = 15000 // ms

// Older front ends open a dialog with the reason by themselves.
const dialogIsOpen = () => !!document.querySelector(".p-dialog, .comfy-modal[style*='block']")

export function tell(summary, detail) {
  app.extensionManager.toast.add({ severity: "error", summary, detail, life: LIFE })
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
