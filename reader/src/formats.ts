// What a caller wants to get, and readings as lines: NDJSON, and CSV that no spreadsheet takes for formulas. Pure.
import { Problem } from '@iot/shared/http/problem'
import { createFieldReader, isNumberText, onOneLine } from '@iot/shared/json-text'

export const FORMATS = ['json', 'ndjson', 'csv'] as const
export type Format = (typeof FORMATS)[number]
/** A reading of texts: `payload` is JSON, `timestamp` a number as it was written. */
export type Reading = { deviceId: string; timestamp: string; payload: string }

const TYPES: Record<string, Format> = {
  'application/json': 'json',
  'application/x-ndjson': 'ndjson',
  'text/csv': 'csv',
  'application/*': 'json',
  'text/*': 'csv',
  '*/*': 'json',
}
export const CONTENT_TYPES: Record<Format, string> = {
  json: 'application/json; charset=utf-8',
  ndjson: 'application/x-ndjson; charset=utf-8',
  csv: 'text/csv; charset=utf-8; header=present',
}
const NOT_ACCEPTABLE = new Problem(
  406,
  'NOT_ACCEPTABLE',
  `This call answers with ${Object.keys(TYPES).slice(0, 3).join(', ')}`,
)

/**
 * The format that an Accept header likes best, of equal ones the first.
 * @throws {Problem} 406 where it takes none of ours
 */
export function formatOf(accept = '*/*'): Format {
  const wanted = accept.split(',').map((part) => {
    const [type = '', ...parameters] = part.split(';').map((text) => text.trim().toLowerCase())
    const quality = parameters.find((text) => text.startsWith('q='))
    return { format: TYPES[type], quality: quality === undefined ? 1 : Number(quality.slice(2)) }
  })
  const [best] = wanted.filter(({ format, quality }) => format && quality > 0).sort((a, b) => b.quality - a.quality)
  if (!best?.format) throw NOT_ACCEPTABLE
  return best.format
}

/** Lines of NDJSON of JSON texts. */
export const ndjsonLine = (json: string): string => `${onOneLine(json)}\n`

/**
 * A table of readings as CSV (RFC 4180).
 * @param fields a column each instead of the payload
 */
export function createCsv(fields: readonly string[] | undefined) {
  const cellsOf = fields && createFieldReader(fields)
  return {
    head: row(['device_id', 'timestamp', ...(fields ?? ['payload'])].map(textCell)),
    row: ({ deviceId, timestamp, payload }: Reading): string =>
      row([textCell(deviceId), timestamp, ...(cellsOf ? cellsOf(payload).map(valueCell) : [jsonCell(payload)])]),
  }
}

const row = (cells: string[]) => `${cells.join(',')}\r\n`
const quoted = (text: string) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
/** What a spreadsheet would take for a formula begins with an apostrophe. */
const textCell = (text: string) => quoted(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text)
const jsonCell = (json: string) => (isNumberText(json) ? json : textCell(onOneLine(json)))

/** A member's text: numbers as they are, strings without their quotes, nothing for what is not there. */
function valueCell(json: string | undefined): string {
  if (json === undefined || json === 'null') return ''
  return json.startsWith('"') ? textCell(JSON.parse(json) as string) : jsonCell(json)
}
