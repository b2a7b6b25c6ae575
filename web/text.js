// Shows what a node of this pack has to tell in the node itself, as text that can be copied; an error in red.

import { app } from "../../scripts/app.js"
// These come first, so that their pictures stand above the text.
import "./compare.js"
import "./gallery.js"
import "./painter.js"
import "./picker.js"
import { addElement, element, growOnce, setVisible } from "./shared/dom.js"
import { isOurs, widgetOf } from "./shared/graph.js"
import { explain } from "./shared/reasons.js"
import { addViewer } from "./shared/results.js"
import { say } from "./shared/words.js"

const WIDGET = "faceclip_text"
const LINE_HEIGHT = 16 // px
const MOST_LINES = 12 // longer text scrolls

function addText(node) {
  const area = element("textarea", { readOnly: true, className: "faceclip-text", ariaLabel: say("Result") })
  // One line more than there are, for a line that wraps.
  const lines = () => Math.min(Math.max(area.value.split("\n").length + 1, 3), MOST_LINES)
  const height = () => lines() * LINE_HEIGHT
  // Where it stands below pictures, these take the room that is left.
  const alone = () =>
    !node.widgets.some((other) => other.element?.classList.contains("faceclip") && other.element !== area)
  return addElement(node, WIDGET, say("Result"), area, height, () => (alone() ? undefined : height() + 2 * LINE_HEIGHT))
}

function set(node, text, isError) {
  const widget = widgetOf(node, WIDGET)
  const { element: area } = widget
  area.value = text
  area.classList.toggle("faceclip-error", isError)
  area.scrollTop = 0
  setVisible(node, widget, !!text)
  if (text) growOnce(node, widget)
}

addViewer({
  nodes: { includes: isOurs },
  key: "text",
  show: (node, output, error) => set(node, error ? explain(error) : [output.text].flat().join("\n"), !!error),
  clear: (node) => set(node, "", false),
})

app.registerExtension({
  name: "FaceCLIP.Text",
  // From the start: older front ends' Nodes 2.0 overlooks what comes later.
  nodeCreated(node) {
    if (isOurs(node.comfyClass)) setVisible(node, addText(node), false)
  },
})
