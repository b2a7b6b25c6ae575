// Gives the sockets and links of our types colours of their own, in both renderers.

import { app } from "../../scripts/app.js"

const COLOURS = {
  FACECLIP: "#7cc4ff",
  FACECLIP_DETECTOR: "#c792ea",
  FACECLIP_FACE: "#ffbe19",
  FACECLIP_IDENTITY: "#32ff4b",
  FACECLIP_PLACEMENT: "#ff9e80",
}

// Whenever a palette is loaded, after setup() too, the host takes away the colours of types that it doesn't know.
function colour() {
  for (const [type, value] of Object.entries(COLOURS)) {
    app.canvas.default_connection_color_byType[type] = value // sockets on the canvas
    LGraphCanvas.link_type_colors[type] = value
    document.documentElement.style.setProperty(`--color-datatype-${type}`, value) // sockets in Nodes 2.0
  }
}

app.registerExtension({ name: "FaceCLIP.Sockets", afterConfigureGraph: colour })
