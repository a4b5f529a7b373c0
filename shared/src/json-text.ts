// JSON as text: members found, cut out and put in as they were written, so that numbers keep every digit and nothing that
// is deeply nested is ever printed by us. Pure and without Node: a page can use it too.

const NUMBER = /^-?\d/
const MAX_DEPTH = 8 // of the objects that fields are looked for in

const BRACE = '{'.charCodeAt(0)
const BRACE_END = '}'.charCodeAt(0)
const BRACKET = '['.charCodeAt(0)
const BRACKET_END = ']'.charCodeAt(0)
const QUOTE = '"'.charCodeAt(0)
const COMMA = ','.charCodeAt(0)
const BACKSLASH = '\\'.charCodeAt(0)
const SPACE = ' '.charCodeAt(0) // the other white space of JSON is below it

/** Is called with a member's path, and where its value stands. */
type Visit = (path: string, start: number, end: number) => void

/**
 * Calls `visit` for each member of a JSON object, and before it for those within its value where `isEntered` says so; paths
 * are names with dots, such as `gps.speed`. Of a text that is no object nothing is visited, of one that is no JSON as much
 * as can be read. @returns where the object ends
 */
function eachMember(text: string, isEntered: (path: string) => boolean, visit: Visit, from = 0, prefix = ''): number {
  let at = skipSpace(text, from)
  if (text.charCodeAt(at) !== BRACE) return at
  at = skipSpace(text, at + 1)
  while (text.charCodeAt(at) === QUOTE) {
    const nameEnd = endOfString(text, at)
    const path = prefix + nameIn(text.slice(at, nameEnd))
    const start = skipSpace(text, skipSpace(text, nameEnd) + 1) // past the colon
    const isObject = text.charCodeAt(start) === BRACE
    const end =
      isObject && isEntered(path) ? eachMember(text, isEntered, visit, start, `${path}.`) : endOfValue(text, start)
    visit(path, start, end)
    at = skipSpace(text, end)
    if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1)
  }
  return at + 1
}

/**
 * The text of a member of a JSON object as it was written; undefined where it has none. Of equal names the last counts,
 * as in `JSON.parse`.
 */
export function memberText(text: string, name: string): string | undefined {
  let found: string | undefined
  const visit: Visit = (path, start, end) => {
    if (path === name) found = text.slice(start, end)
  }
  eachMember(text, () => false, visit)
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
    const visit: Visit = (path, start, end) => {
      const place = places.get(path)
      if (place !== undefined) found[place] = text.slice(start, end)
    }
    eachMember(text, (path) => above.has(path), visit)
    return found
  }
}

/** The paths of the numbers in a JSON object and in the objects within it, not in arrays. */
export function numberFields(text: string): string[] {
  const found: string[] = []
  const visit: Visit = (path, start, end) => {
    if (isNumberText(text.slice(start, end))) found.push(path)
  }
  eachMember(text, (path) => path.split('.').length < MAX_DEPTH, visit)
  return found
}

/** The texts of a JSON array's elements, as they were written. */
export function elementTexts(text: string): string[] {
  const found: string[] = []
  let at = skipSpace(text, text.indexOf('[') + 1)
  while (at < text.length && text[at] !== ']') {
    const end = endOfValue(text, at)
    if (end === at) break // no JSON
    found.push(text.slice(at, end))
    at = skipSpace(text, end)
    if (text[at] === ',') at = skipSpace(text, at + 1)
  }
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
  while (text.charCodeAt(at) <= SPACE) at++
  return at
}

/** @param start where its opening quote is */
function endOfString(text: string, start: number): number {
  for (let at = text.indexOf('"', start + 1); at !== -1; at = text.indexOf('"', at + 1)) {
    let before = at
    while (text.charCodeAt(before - 1) === BACKSLASH) before--
    if ((at - before) % 2 === 0) return at + 1
  }
  return text.length
}

function endOfValue(text: string, start: number): number {
  if (text.charCodeAt(start) === QUOTE) return endOfString(text, start)
  let depth = 0
  for (let at = start; at < text.length; at++) {
    const char = text.charCodeAt(at)
    if (char === QUOTE) at = endOfString(text, at) - 1
    else if (char === BRACE || char === BRACKET) depth++
    else if (char === BRACE_END || char === BRACKET_END) {
      if (depth === 0) return at // the end of the object around a number or a word
      if (--depth === 0) return at + 1
    } else if (depth === 0 && (char === COMMA || char <= SPACE)) return at
  }
  return text.length
}
