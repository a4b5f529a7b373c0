// JSON as text: members found, cut out and put in as they were written, so that numbers keep every digit and nothing that
// is deeply nested is ever printed by us. Pure and without Node: a page can use it too.

const SPACE = /\s/
const NUMBER = /^-?\d/
const MAX_DEPTH = 8 // of the objects that fields are looked for in

/** The function that `eachMember` calls: with a member's path, and where its value stands. True goes into its value. */
type Visit = (path: string, start: number, end: number) => boolean

/**
 * Calls `visit` for each member of a JSON object, in its order; paths are names with dots, such as `gps.speed`. Of a text
 * that is no object nothing is visited, of one that is no JSON as much as can be read.
 */
function eachMember(text: string, visit: Visit, from = 0, prefix = ''): void {
  let at = skipSpace(text, from)
  if (text[at] !== '{') return
  at = skipSpace(text, at + 1)
  while (text[at] === '"') {
    const nameEnd = endOfString(text, at)
    const path = prefix + nameIn(text.slice(at, nameEnd))
    const start = skipSpace(text, skipSpace(text, nameEnd) + 1) // past the colon
    const end = endOfValue(text, start)
    if (visit(path, start, end)) eachMember(text, visit, start, `${path}.`)
    at = skipSpace(text, end)
    if (text[at] === ',') at = skipSpace(text, at + 1)
  }
}

/**
 * The text of a member of a JSON object as it was written; undefined where it has none. Of equal names the last counts,
 * as in `JSON.parse`.
 */
export function memberText(text: string, name: string): string | undefined {
  let found: string | undefined
  eachMember(text, (path, start, end) => {
    if (path === name) found = text.slice(start, end)
    return false
  })
  return found
}

/** Returns a function that cuts the texts of these fields out of a JSON object; undefined for those that it has not. */
export function createFieldReader(fields: readonly string[]): (text: string) => (string | undefined)[] {
  const places = new Map(fields.map((field, place) => [field, place]))
  const above = new Set(
    fields.flatMap((field) => field.split('.').map((_, count, parts) => parts.slice(0, count).join('.'))),
  )
  return (text) => {
    const found: (string | undefined)[] = fields.map(() => undefined)
    eachMember(text, (path, start, end) => {
      const place = places.get(path)
      if (place !== undefined) found[place] = text.slice(start, end)
      return above.has(path)
    })
    return found
  }
}

/** The paths of the numbers in a JSON object and in the objects within it, not in arrays. */
export function numberFields(text: string): string[] {
  const found: string[] = []
  eachMember(text, (path, start, end) => {
    if (isNumberText(text.slice(start, end))) found.push(path)
    return path.split('.').length < MAX_DEPTH
  })
  return found
}

/** Whether a JSON text is that of a number. */
export const isNumberText = (text: string): boolean => NUMBER.test(text)

/** A JSON object's text with a member more at its end; the rest stays as it was written. */
export function withMember(text: string, name: string, valueText: string): string {
  const end = text.lastIndexOf('}')
  const isEmpty = text.slice(text.indexOf('{') + 1, end).trim() === ''
  return `${text.slice(0, end)}${isEmpty ? '' : ','}${JSON.stringify(name)}:${valueText}}`
}

/** A JSON text on one line: line breaks in it can only be white space between its parts. */
export const onOneLine = (text: string): string => (/[\r\n]/.test(text) ? text.replace(/[\r\n]/g, ' ') : text)

/** @param quoted a name as it stands in the text */
const nameIn = (quoted: string): string => (quoted.includes('\\') ? JSON.parse(quoted) : quoted.slice(1, -1))

function skipSpace(text: string, from: number): number {
  let at = from
  while (at < text.length && SPACE.test(text[at] as string)) at++
  return at
}

/** @param start where its opening quote is */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === '\\') at++
    else if (text[at] === '"') return at + 1
  }
  return text.length
}

function endOfValue(text: string, start: number): number {
  const first = text[start]
  if (first === '"') return endOfString(text, start)
  let depth = 0
  for (let at = start; at < text.length; at++) {
    const char = text[at] as string
    if (char === '"') at = endOfString(text, at) - 1
    else if (char === '{' || char === '[') depth++
    else if (char === '}' || char === ']') {
      if (depth === 0) return at // the end of the object around a number or a word
      if (--depth === 0) return at + 1
    } else if (depth === 0 && (char === ',' || SPACE.test(char))) return at
  }
  return text.length
}
