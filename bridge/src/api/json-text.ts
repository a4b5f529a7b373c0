// JSON as text: members cut out and put in as they were written, so that numbers keep every digit and nothing that is
// deeply nested is ever printed by us.
import type { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'

const SPACE = /\s/

/** Sends what is JSON already; its schema only describes it. */
export const sendJson = (reply: FastifyReply, json: string | Readable) =>
  reply.type('application/json; charset=utf-8').send(json) as never

/**
 * The text of a member of a JSON object as it was written; undefined where it has none. Of equal names the last counts,
 * as in `JSON.parse`.
 * @param text a valid JSON object
 */
export function memberText(text: string, name: string): string | undefined {
  let found: string | undefined
  let at = skipSpace(text, text.indexOf('{') + 1)
  while (text[at] === '"') {
    const nameEnd = endOfString(text, at)
    const isIt = JSON.parse(text.slice(at, nameEnd)) === name
    const start = skipSpace(text, skipSpace(text, nameEnd) + 1) // past the colon
    const end = endOfValue(text, start)
    if (isIt) found = text.slice(start, end)
    at = skipSpace(text, end)
    if (text[at] === ',') at = skipSpace(text, at + 1)
  }
  return found
}

/** A JSON object's text with a member more at its end; the rest stays as it was written. */
export function withMember(text: string, name: string, valueText: string): string {
  const end = text.lastIndexOf('}')
  const isEmpty = text.slice(text.indexOf('{') + 1, end).trim() === ''
  return `${text.slice(0, end)}${isEmpty ? '' : ','}${JSON.stringify(name)}:${valueText}}`
}

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
  throw new Error('not a JSON text')
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
  throw new Error('not a JSON text')
}
