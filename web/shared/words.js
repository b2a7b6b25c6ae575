// Words of our own widgets, in the language of the front end where there is a table of it, else in English.
// {name} in a text stands for a value.

import { app } from "../../../scripts/app.js"
import ja from "./words_ja.js"
import zh from "./words_zh.js"

const TABLES = { ja, zh }

export function say(text, values = {}) {
  const said = TABLES[app.extensionManager.setting.get("Comfy.Locale")]?.[text] ?? text
  return said.replace(/\{(\w+)\}/g, (_, name) => values[name])
}
