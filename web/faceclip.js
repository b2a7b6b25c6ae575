// Shows what a node of this pack has to tell (`ui.PreviewText`) in the node itself, as text that can be copied.
// The text is a result: it goes neither into the saved workflow nor into the prompt, where it would undo caching.

import { app } from "../../scripts/app.js"

const WIDGET = "faceclip_text"
const LINE_HEIGHT = 16
const MOST_LINES = 12 // longer text scrolls

function addTextWidget(node) {
  const area = document.createElement("textarea")
  area.className = "comfy-multiline-input"
  area.readOnly = true
  const widget = node.addDOMWidget(WIDGET, "customtext", area, {
    serialize: false, // not in the prompt
    hideOnZoom: true,
    read_only: true,
    getValue: () => area.value,
    setValue: (text) => (area.value = text),
    // One line more than there are, for a line that wraps.
    getMinHeight: () => Math.min(area.value.split("\n").length + 1, MOST_LINES) * LINE_HEIGHT,
  })
  widget.serialize = false // not in the workflow
  return widget
}

function showText(node, text) {
  const shown = node.widgets?.find((widget) => widget.name === WIDGET)
  const widget = shown ?? addTextWidget(node)
  widget.value = text
  if (!shown) {
    const [width, height] = node.computeSize() // grow once; from then on the size is the user's
    node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)])
  }
  node.setDirtyCanvas(true, true)
}

app.registerExtension({
  name: "FaceCLIP.Text",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("FaceCLIP")) return
    const onExecuted = nodeType.prototype.onExecuted
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.apply(this, arguments)
      const text = [output?.text ?? []].flat().join("\n")
      if (text) showText(this, text)
    }
  },
})
