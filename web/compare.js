// Pictures with their likeness, in Face Similarity and Pick Best Likeness; and the picture of Likeness Chart.

import { app } from "../../scripts/app.js"
import { addElement, element, growOnce, pictureUrl, setVisible } from "./shared/dom.js"
import { widgetOf } from "./shared/graph.js"
import { addViewer } from "./shared/results.js"
import { say } from "./shared/words.js"

const COMPARING = ["FaceCLIPSimilarity", "FaceCLIPPickBest"]
const CHART = "FaceCLIPLikenessChart"
const WIDGET = "faceclip_likeness"
const HEIGHT = 230 // px

class Comparison {
  constructor(node) {
    this.pictures = []
    this.sorted = false
    this.sort = element("button", { className: "faceclip-button", onclick: () => this.toggle() }, say("Best first"))
    this.grid = element("div", { className: "faceclip-scores" })
    this.root = element("div", { className: "faceclip-comparison" }, this.sort, this.grid)
    this.widget = addElement(node, WIDGET, say("Likeness"), this.root, () => HEIGHT)
    setVisible(node, this.widget, false)
  }

  show(output) {
    this.pictures = output.faceclip_scores ?? []
    this.draw()
  }

  toggle() {
    this.sorted = !this.sorted
    this.draw()
  }

  draw() {
    this.sort.ariaPressed = String(this.sorted)
    const best = ({ scores }) => scores[0] ?? Number.NEGATIVE_INFINITY
    const numbered = this.pictures.map((picture, number) => ({ ...picture, number: number + 1 }))
    const inOrder = this.sorted ? numbered.sort((a, b) => best(b) - best(a)) : numbered
    this.grid.replaceChildren(...inOrder.map((picture) => this.drawOne(picture)))
  }

  drawOne({ photo, scores, kept, person, number }) {
    const score = scores.length ? scores[0].toFixed(3) : say("no face")
    const more = scores.length > 1 ? say("{count} faces", { count: scores.length }) : ""
    const words = [say("picture {number}", { number }), person, more, kept && say("kept")].filter(Boolean).join(", ")
    const picture = element("img", { src: pictureUrl(photo), alt: words, draggable: false })
    const badge = element("figcaption", {}, kept ? `${score} ✓` : score)
    const figure = element("figure", { className: "faceclip-score", title: words }, picture, badge)
    figure.classList.toggle("faceclip-kept", kept)
    return figure
  }
}

class Chart {
  constructor(node) {
    this.root = element("div", { className: "faceclip-chart" })
    this.widget = addElement(node, WIDGET, say("Chart"), this.root, () => HEIGHT)
    setVisible(node, this.widget, false)
  }

  show(output) {
    const [picture] = output.faceclip_chart ?? []
    this.root.replaceChildren(...(picture ? [element("img", { src: pictureUrl(picture), alt: say("Chart") })] : []))
  }
}

const views = new WeakMap()

function showIn(node, output, key) {
  views.get(node).show(output)
  const widget = widgetOf(node, WIDGET)
  setVisible(node, widget, !!output[key])
  if (output[key]) growOnce(node, widget)
}

function watch(nodes, key) {
  const show = (node, output) => showIn(node, output, key)
  addViewer({ nodes, key, showsPictures: true, show, clear: (node) => showIn(node, {}, key) })
}

watch(COMPARING, "faceclip_scores")
watch([CHART], "faceclip_chart")

app.registerExtension({
  name: "FaceCLIP.Compare",
  nodeCreated(node) {
    if (COMPARING.includes(node.comfyClass)) views.set(node, new Comparison(node))
    if (node.comfyClass === CHART) views.set(node, new Chart(node))
  },
})
