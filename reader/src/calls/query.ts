// Times, ranges and formats as callers give them.
import { duration } from '@iot/shared/http/calls'
import { z } from 'zod'
import { FORMATS, type Format, formatOf } from '../formats.js'
import type { Range } from '../redis/history.js'

const UNIX = String.raw`\d{1,11}(\.\d{1,9})?`
const DATE = String.raw`\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])`
const CLOCK = String.raw`([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)`

/** Unix time in seconds, of itself or of RFC 3339; the decimals are those that were written. */
const time = z
  .string()
  .regex(new RegExp(`^(${UNIX}|${DATE}T${CLOCK})$`), 'must be Unix seconds, or a time such as 2026-01-31T12:00:00Z')
  .transform((text) => {
    if (!text.includes('T')) return Number(text)
    const [, decimals = ''] = /\.(\d+)/.exec(text) ?? []
    return Number(`${Date.parse(text.replace(/\.\d+/, '')) / 1000}.${decimals}`)
  })

export const range = {
  from: time.optional().describe('Unix seconds, or a time of RFC 3339; belongs to the range'),
  to: time.optional().describe('does not belong to the range'),
  last: duration(31_536_000_000, '8760h').optional().describe('such as 15m: the range up to now'),
}
export const fields = z
  .string()
  .regex(/^[^,]{1,200}(,[^,]{1,200}){0,19}$/, 'must be 1 to 20 names with commas')
  .transform((text) => [...new Set(text.split(','))])
export const format = z.enum(FORMATS).optional().describe('Instead of an Accept header')

/** What lies in all of what was given. */
export function rangeOf(query: {
  from?: number | undefined
  to?: number | undefined
  last?: number | undefined
}): Range {
  const { from, to = null, last } = query
  const starts = [from, last && (Date.now() - last) / 1000].filter((start) => start !== undefined)
  return { from: starts.length > 0 ? Math.max(...starts) : null, to }
}

/** @throws {Problem} 406 where a caller wants another format */
export const wantedFormat = (request: {
  query: { format?: Format | undefined }
  headers: { accept?: string | undefined }
}) => request.query.format ?? formatOf(request.headers.accept)
