// GET /devices/{device_id}/history: what a device has sent, a page as JSON or a whole range as lines.
import { lastStateKey } from '@iot/shared/contract'
import { count, deviceParams, invalidDevice } from '@iot/shared/http/calls'
import { errors, Problem } from '@iot/shared/http/problem'
import { createFieldReader } from '@iot/shared/json-text'
import type { FastifyPluginAsync } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { createCsv, type Format, ndjsonLine } from '../formats.js'
import type { LongReads } from '../long-reads.js'
import type { RedisReader } from '../redis/connection.js'
import { CURSOR, cursorText, type Entry, type Order, type Range, readCursor, readHistory } from '../redis/history.js'
import { pageOrLines, sendPieces } from './answers.js'
import { fields, format, range, rangeOf, wantedFormat } from './query.js'
import { UNKNOWN } from './state.js'

const LIMIT = 1000
const MAX_LIMIT = 10_000

const INVALID_CURSOR = new Problem(400, 'INVALID_CURSOR', 'This is no cursor of this call')

const querySchema = z.object({
  ...range,
  order: z.enum(['desc', 'asc']).optional().describe('desc, the newest first, where it is not given; asc for lines'),
  limit: count(MAX_LIMIT).optional().describe('1,000 where it is not given; all for lines'),
  cursor: z
    .string()
    .meta({ pattern: CURSOR.source })
    .optional()
    .describe('`next` of the page before; the walk goes on in its order'),
  fields: fields.optional().describe('The columns of CSV, instead of the payload'),
  format,
})
const pageSchema = z
  .object({
    device_id: z.string(),
    from: z.number().nullable(),
    to: z.number().nullable(),
    order: z.enum(['desc', 'asc']),
    messages: z.array(z.unknown()).describe('Whole messages, as on Kafka'),
    next: z.string().nullable().describe('The cursor of the next page; null where this is the last one'),
  })
  .meta({ id: 'History' })

type Page = { deviceId: string; range: Range; order: Order; limit: number }

/** A page as JSON, in pieces; the messages go in as they are stored. */
async function* pageOf(
  { deviceId, range, order, limit }: Page,
  pages: AsyncGenerator<Entry[]>,
): AsyncGenerator<string> {
  const head = JSON.stringify({ device_id: deviceId, ...range, order })
  let given = 0
  let last: Entry | undefined
  let hasMore = false
  for await (const page of pages) {
    const entries = page.slice(0, limit - given)
    hasMore = page.length > entries.length
    if (entries.length > 0) {
      const start = given === 0 ? `${head.slice(0, -1)},"messages":[` : ','
      yield start + entries.map(({ member }) => member).join(',')
    }
    last = entries.at(-1) ?? last
    given += entries.length
    if (hasMore) break
  }
  const next = hasMore && last ? cursorText(order, last) : null
  yield `${given === 0 ? `${head.slice(0, -1)},"messages":[` : ''}],"next":${JSON.stringify(next)}}`
}

/** Lines, in pieces. */
async function* linesOf(
  { deviceId, limit }: Page,
  pages: AsyncGenerator<Entry[]>,
  format: Format,
  fields: readonly string[] | undefined,
): AsyncGenerator<string> {
  const csv = createCsv(fields)
  const partsOf = createFieldReader(['payload', 'timestamp'])
  const csvRow = (member: string) => {
    const [payload = 'null', timestamp = ''] = partsOf(member)
    return csv.row({ deviceId, timestamp, payload })
  }
  const line = format === 'csv' ? csvRow : ndjsonLine
  let start = format === 'csv' ? csv.head : '' // with the first page: before that an error has a code
  let left = limit
  for await (const page of pages) {
    yield start +
      page
        .slice(0, left)
        .map(({ member }) => line(member))
        .join('')
    start = ''
    left -= page.length
    if (left <= 0) return
  }
  if (start !== '') yield start
}

export const historyCalls =
  ({ longReads }: { longReads: LongReads }): FastifyPluginAsync =>
  async (untyped) => {
    const app = untyped.withTypeProvider<ZodTypeProvider>()
    app.get(
      '/devices/:deviceId/history',
      {
        exposeHeadRoute: false, // it would read everything
        schema: {
          summary: 'What a device has sent: a page as JSON, or a whole range as NDJSON or CSV',
          description:
            'Within one score, which is a second, messages are sorted by their text, and equal ones are one.',
          params: deviceParams,
          querystring: querySchema,
          response: {
            200: pageOrLines(pageSchema),
            ...errors(400, 404, 406, 504),
          },
        },
        config: { invalid: { params: invalidDevice } },
      },
      async (request, reply) => {
        const { deviceId } = request.params
        const { query } = request
        const format = wantedFormat(request)
        const isPage = format === 'json'
        const cursor = query.cursor === undefined ? undefined : readCursor(query.cursor)
        if (cursor === null) throw INVALID_CURSOR
        const { limit = isPage ? LIMIT : Number.POSITIVE_INFINITY } = query
        const order = cursor?.order ?? query.order ?? (isPage ? 'desc' : 'asc')
        const page = { deviceId, range: rangeOf(query), order, limit }
        const items = await longReads.begin((read) => {
          const pages = known(deviceId, readHistory(read, deviceId, page.range, order, cursor), read)
          return isPage ? pageOf(page, pages) : linesOf(page, pages, format, query.fields)
        })
        return sendPieces(reply, format, items)
      },
    )
  }

/** @throws {Problem} DEVICE_UNKNOWN where a history is empty and the device has no state either */
async function* known(
  deviceId: string,
  pages: AsyncGenerator<Entry[]>,
  read: RedisReader['read'],
): AsyncGenerator<Entry[]> {
  let isKnown = false
  for await (const page of pages) {
    isKnown = true
    yield page
  }
  if (isKnown) return
  const [found] = await read([['EXISTS', lastStateKey(deviceId)]])
  if (found !== 1) throw UNKNOWN
}
