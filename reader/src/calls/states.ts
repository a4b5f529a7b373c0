// GET /states: all known devices with their last states, filtered, in pages or as lines.
import { count, duration } from '@iot/shared/http/calls'
import { errors } from '@iot/shared/http/problem'
import type { FastifyPluginAsync } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { type DeviceIndex, lowerBound } from '../device-index.js'
import { createCsv, type Format, ndjsonLine } from '../formats.js'
import type { LongReads } from '../long-reads.js'
import type { Presence } from '../presence.js'
import type { RedisReader } from '../redis/connection.js'
import { type Found, readStates } from '../redis/states.js'
import { pageOrLines, sendPieces } from './answers.js'
import { fields, format, wantedFormat } from './query.js'
import { stateSchema, stateText } from './state.js'

const LIMIT = 100
const FIRST_BATCH = 16 // of devices whose sizes are not known yet
const MAX_BATCH = 250
const BATCH_CHARS = 256_000

const querySchema = z.object({
  prefix: z.string().max(256).optional().describe('How ids begin'),
  contains: z.string().max(256).optional(),
  online: z.enum(['true', 'false']).optional(),
  silent_for: duration(31_536_000_000, '8760h').optional().describe('Those without a reading for so long, such as 10m'),
  limit: count(1000).optional().describe('100 where it is not given; all for lines'),
  after: z.string().max(256).optional().describe('`next` of the page before'),
  offset: z
    .string()
    .regex(/^\d{1,8}$/)
    .transform(Number)
    .optional()
    .describe('How many to leave out'),
  fields: fields.optional().describe('The columns of CSV, instead of the payload'),
  format,
})
type Query = z.output<typeof querySchema>
const unreadableSchema = z.object({ device_id: z.string(), error: z.literal('NOT_READABLE') })
const pageSchema = z
  .object({
    total: z.int().describe('All known devices'),
    total_is_exact: z.boolean().describe('false while the first look is under way, and past MAX_LISTED_DEVICES'),
    matched: z.int().describe('Those that all filters let through'),
    position: z.string().nullable().describe('Where on Kafka a feed begins that misses nothing after these states'),
    devices: z.array(z.union([stateSchema, unreadableSchema])).describe('Sorted by id'),
    next: z.string().nullable().describe('`after` of the next page; null where this is the last one'),
  })
  .meta({ id: 'States' })

/** The states of devices, in batches of about a quarter of a megabyte. */
async function* statesOf(read: RedisReader['read'], ids: readonly string[]): AsyncGenerator<[string, Found][]> {
  let size = FIRST_BATCH
  for (let at = 0; at < ids.length; ) {
    const batch = ids.slice(at, at + size)
    const states = await readStates({ read }, batch)
    yield batch.map((id, index) => [id, states[index] as Found])
    at += batch.length
    const chars = states.reduce((sum, state) => sum + (typeof state === 'object' ? (state?.payload.length ?? 0) : 0), 1)
    size = Math.max(1, Math.min(2 * size, MAX_BATCH, Math.floor((BATCH_CHARS * batch.length) / chars)))
  }
}

const NOTHING = { payload: 'null', timestamp: 'null', position: null } // online, and has sent no reading yet

export const statesCalls =
  (options: {
    index: DeviceIndex
    presence: Pick<Presence, 'current'>
    longReads: LongReads
    /** The committed offsets of the consumers, as a feed's position; null where they are not known. */
    position: () => Promise<string | null>
  }): FastifyPluginAsync =>
  async (untyped) => {
    const { index, presence, longReads } = options
    const app = untyped.withTypeProvider<ZodTypeProvider>()

    const text = (id: string, state: Found) =>
      state === 'unreadable'
        ? JSON.stringify({ device_id: id, error: 'NOT_READABLE' })
        : stateText(id, state ?? NOTHING, presence.current(id))

    /** Those that a key with this prefix may see. */
    const ownIds = (prefix: string) => (prefix === '' ? index.ids() : index.ids().filter((id) => id.startsWith(prefix)))

    /** The ids that the filters let through. */
    const matching = async (query: Query, all: readonly string[], read: RedisReader['read']) => {
      const { prefix = '', contains = '', online, silent_for: silentMs } = query
      const found = all.filter(
        (id) =>
          id.startsWith(prefix) &&
          id.includes(contains) &&
          (online === undefined || presence.current(id) === (online === 'true')),
      )
      if (silentMs === undefined) return found
      const since = (Date.now() - silentMs) / 1000
      const isSilent = (id: string) => index.lastHeard(id) < since
      await index.refresh(read, found.filter(isSilent)) // others have spoken for sure
      return found.filter(isSilent)
    }

    /** What was asked for, of all and of those that match; at most `most` where the query has no limit. */
    const select = async (query: Query, own: string, read: RedisReader['read'], most: number) => {
      const all = ownIds(own)
      const matched = await matching(query, all, read)
      const { after, offset = 0, limit = most } = query
      const start = offset + (after === undefined ? 0 : lowerBound(matched, `${after}\0`))
      const ids = matched.slice(start, start + limit)
      const next = start + ids.length < matched.length ? (ids.at(-1) ?? null) : null
      return { total: all.length, matched: matched.length, ids, next }
    }

    async function* pageOf(query: Query, own: string, read: RedisReader['read']): AsyncGenerator<string> {
      const position = await options.position() // before the states: they are never older
      const { total, matched, ids, next } = await select(query, own, read, LIMIT)
      const counts = JSON.stringify({ total, total_is_exact: index.isWhole(), matched, position })
      let start = `${counts.slice(0, -1)},"devices":[`
      for await (const states of statesOf(read, ids)) {
        yield start + states.map(([id, state]) => text(id, state)).join(',')
        start = ','
      }
      yield `${start === ',' ? '' : start}],"next":${JSON.stringify(next)}}`
    }

    async function* linesOf(query: Query, own: string, format: Format, read: RedisReader['read']) {
      const { ids } = await select(query, own, read, Number.POSITIVE_INFINITY)
      const csv = createCsv(query.fields)
      const csvRow = (id: string, state: Found) => {
        const { payload, timestamp } = typeof state === 'object' && state ? state : { payload: '', timestamp: '' }
        return csv.row({ deviceId: id, timestamp, payload })
      }
      const line = format === 'csv' ? csvRow : (id: string, state: Found) => ndjsonLine(text(id, state))
      let start = format === 'csv' ? csv.head : ''
      for await (const states of statesOf(read, ids)) {
        yield start + states.map(([id, state]) => line(id, state)).join('')
        start = ''
      }
      if (start !== '') yield start
    }

    app.get(
      '/states',
      {
        exposeHeadRoute: false, // it would read everything
        schema: {
          summary: 'All known devices with their last states: a page as JSON, or all that match as NDJSON or CSV',
          querystring: querySchema,
          response: {
            200: pageOrLines(pageSchema),
            ...errors(400, 406, 504),
          },
        },
        config: { keepsToPrefix: true },
      },
      async (request, reply) => {
        const { query, caller } = request
        const format = wantedFormat(request)
        const items = await longReads.begin((read) =>
          format === 'json' ? pageOf(query, caller.prefix, read) : linesOf(query, caller.prefix, format, read),
        )
        return sendPieces(reply, format, items)
      },
    )
  }
