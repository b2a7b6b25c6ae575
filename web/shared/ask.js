// Questions to the user and to our own part of the server.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"

// The answer of one of our routes; an Error with its words where it says what is wrong.
export async function ask(path, body) {
  const json = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }
  const sent = body instanceof FormData ? { method: "POST", body } : body && json
  const response = await api.fetchApi(`/faceclip/${path}`, sent)
  const answer = await response.json().catch(() => ({}))
  if (!response.ok) throw new Error(answer.error ?? `${response.status} ${response.statusText}`)
  return answer
}

export const askForText = (title, message, defaultValue) =>
  app.extensionManager.dialog.prompt({ title, message, defaultValue })

export const askWhether = (title, message, type = "default") =>
  app.extensionManager.dialog.confirm({ title, message, type })
