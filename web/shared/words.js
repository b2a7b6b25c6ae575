// Words of our own widgets. {name} in a text stands for a value.

export function say(text, values = {}) {
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name])
}
