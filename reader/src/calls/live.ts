// GET /live: what devices send, from now on or from any position that Kafka still has, as SSE or NDJSON.
import { count, deviceParams, duration } from '@iot/shared/http/calls'
import { errors, Problem } from '@iot/shared/http/problem'
import { clientOf, FORBIDDEN } from '@iot/shared/http/server'
import { decodePosition } from '@iot/shared/positions'
import type { FastifyPluginAsync } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { Feed, From } from '../live/feed.js'
import type { Format } from '../live/frames.js'

const MAX_DEVICES = 200
const MIN_EVERY_MS = 100
const FORMATS: Record<string, Format> = {
  'text/event-stream': 'sse',
  'text/*': 'sse',
  '*/*': 'sse',
  'application/x-ndjson': 'ndjson',
  'application/*': 'ndjson',
}

const POSITION_WORDS = 'now, earliest, Unix seconds, an id of an event, or with one device the position of its state'
const INVALID_POSITION = new Problem(400, 'INVALID_POSITION', `This is no position: give ${POSITION_WORDS}`)
const NOT_ACCEPTABLE = new Problem(
  406,
  'NOT_ACCEPTABLE',
  'This call answers with text/event-stream, application/x-ndjson',
)

const { deviceId } = deviceParams.shape
const flag = z.enum(['true', 'false']).optional()
const querySchema = z.object({
  device: z
    .union([deviceId, z.array(deviceId).max(MAX_DEVICES)])
    .optional()
    .transform((ids) => (ids === undefined ? undefined : [ids].flat()))
    .describe('Only these devices: up to 200 times'),
  prefix: z.string().max(256).optional().describe('Only devices whose ids begin so'),
  every: duration(60_000, '60s')
    .transform((ms) => Math.max(ms, MIN_EVERY_MS))
    .optional()
    .describe('The newest update of each device in this time, such as 500ms, instead of all; 100ms at least'),
  after: z.string().max(8192).optional().describe(`Where to begin: ${POSITION_WORDS}. A Last-Event-ID goes before it`),
  presence: flag.describe('Also who comes and goes'),
  flow: flag.describe('Also the flow, once a second'),
  for: duration(86_400_000, '24h').optional().describe('Ends the stream after this time'),
  count: count(1_000_000_000).optional().describe('Ends the stream after so many updates'),
  format: z.enum(['sse', 'ndjson']).optional().describe('Instead of an Accept header'),
})

/** @throws {Problem} INVALID_POSITION */
function fromOf(text: string, devices: readonly string[] | undefined): From {
  if (text === 'now' || text === 'earliest') return text
  if (/^\d{1,11}(\.\d{1,9})?$/.test(text)) return Math.floor(Number(text) * 1000)
  const position = decodePosition(text)
  if (position?.vector) return position.vector
  if (!position?.record || devices?.length !== 1) throw INVALID_POSITION
  return position.record
}

/** The first that we have of those that a caller accepts. @throws {Problem} NOT_ACCEPTABLE */
function formatOf(accept = '*/*'): Format {
  const types = accept.split(',').map((part) => part.split(';')[0]?.trim().toLowerCase() ?? '')
  const [found] = types.flatMap((type) => FORMATS[type] ?? [])
  if (!found) throw NOT_ACCEPTABLE
  return found
}

export const liveCalls =
  ({ feed }: { feed: Feed }): FastifyPluginAsync =>
  async (untyped) => {
    const app = untyped.withTypeProvider<ZodTypeProvider>()
    app.get(
      '/live',
      {
        exposeHeadRoute: false, // it would open a stream
        config: { keepsToPrefix: true },
        schema: {
          summary: 'The live feed, which goes on exactly where it was cut',
          description:
            'Events: `open` (where it begins, and whether that is where it was cut), `update` (a record of Kafka), `gap` ' +
            '(what Kafka has not got any more), `presence`, `flow`, `status`. An event with an id is a position: the ' +
            'next stream goes on behind it, by Last-Event-ID or `after`.',
          querystring: querySchema,
          headers: z.looseObject({ 'last-event-id': z.string().max(8192).optional() }),
          response: {
            200: {
              description: 'Events, without an end unless `for` or `count` are given',
              content: {
                'text/event-stream': { schema: z.string() },
                'application/x-ndjson': { schema: z.string() },
              },
            },
            ...errors(400, 406),
          },
        },
      },
      async (request, reply) => {
        const { device: devices, prefix = '', every = 0, presence, flow } = request.query
        const own = request.caller.prefix
        if (own !== '' && (flow === 'true' || devices?.some((id) => !id.startsWith(own)))) throw FORBIDDEN
        const only = devices && new Set(devices)
        const { 'last-event-id': last, accept } = request.headers as Record<string, string | undefined>
        const start = await feed.open({
          address: clientOf(request),
          from: fromOf(last || request.query.after || 'now', devices),
          format: request.query.format ?? formatOf(accept),
          matches: (id) => (only === undefined || only.has(id)) && id.startsWith(prefix) && id.startsWith(own),
          devices,
          everyMs: every,
          presence: presence === 'true',
          flow: flow === 'true',
          forMs: request.query.for ?? Number.POSITIVE_INFINITY,
          count: request.query.count ?? Number.POSITIVE_INFINITY,
        })
        reply.hijack()
        start(reply.raw, reply.getHeaders() as Record<string, string>)
      },
    )
  }
