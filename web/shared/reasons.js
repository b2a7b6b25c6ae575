// Errors come in English. Of those that come most the first sentence is also said in the language of the front end.

import { say } from "./words.js"

// How they begin. {name} stands for what the error names there.
const BEGINNINGS = [
  "No face was found in the picture ({width} x {height} px).",
  "No face was found in picture {number} of {count} ({width} x {height} px).",
  "Face index {index} is past the last",
  "The values of the picture run from {low} to {high}; 0 to 1 is wanted.",
  "The identity {name} was read by another face encoder",
  "The two identities were read by different face encoders",
  "The YuNet face detector was not found.",
  "The SFace face recogniser was not found.",
  "The InsightFace pack {name} was not found.",
  "{name} is not among the host's {folder} models.",
  "{name} is not a FaceCLIP encoder, nor a FaceT5 one.",
  "No {what} arrives at the input {input}.",
  "Nothing arrives at the input {input}.",
  "What arrives at {input} is a {type} and no {what}.",
  "The {name} is {value} px, wanted a multiple of {step}:",
  "The diffusion model reads tokens that are {wanted} wide, and these are {seen}.",
  "The noise levels begin at {first}, and FLUX's largest is {largest}.",
  "The noise levels begin at 1, which on an empty latent gives noise:",
]

const escaped = (text) => text.replace(/[.*+?^$()|[\]\\]/g, "\\$&")
const patterns = BEGINNINGS.map((text) => {
  const pattern = escaped(text).replace(/\{(\w+)\}/g, "(?<$1>.+?)")
  return [text, new RegExp(`^${pattern}(?!\\w)`)]
})

export function explain(error) {
  for (const [text, pattern] of patterns) {
    const found = pattern.exec(error)
    if (!found) continue
    const said = say(text, found.groups)
    return said === found[0] ? error : `${said}\n\n${error}`
  }
  return error
}
