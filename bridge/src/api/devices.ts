// GET /devices, GET /devices/{device_id} and GET /presence: who is online, and who came and went.
import { Readable } from 'node:stream'
import { deviceParams, invalidDevice, sendJson } from '@iot/shared/http/calls'
import { errors } from '@iot/shared/http/problem'
import type { FastifyPluginAsync } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { Presence } from '../presence.js'

const PIECE_DEVICES = 250 // in one piece of a list: at most 64 KB of ids wait for a caller that reads slowly

const deviceSchema = z
  .object({
    device_id: z.string(),
    online: z.boolean(),
    last_seen: z.int().nullable().describe('Unix time in seconds'),
  })
  .meta({ id: 'Device' })

export const deviceCalls =
  (presence: Pick<Presence, 'list' | 'lastSeen' | 'version' | 'changesSince'>): FastifyPluginAsync =>
  async (untyped) => {
    const app = untyped.withTypeProvider<ZodTypeProvider>()
    const describe = (deviceId: string) => {
      const last_seen = presence.lastSeen(deviceId)
      return { device_id: deviceId, online: last_seen !== null, last_seen }
    }
    const idsOf: PieceOf = (ids, from) => members(ids, from, (deviceId) => JSON.stringify(deviceId))
    const allIdsOf = keepPieces(idsOf)
    const detailsOf = (ids: readonly string[], from: number) =>
      members(ids, from, (deviceId) => JSON.stringify(describe(deviceId)))

    app.get(
      '/devices',
      {
        schema: {
          summary: 'The devices that are online now, sorted',
          querystring: z.object({ details: z.enum(['true', 'false']).optional() }),
          response: { 200: z.union([z.array(z.string()), z.array(deviceSchema)]), ...errors(400) },
        },
        config: { keepsToPrefix: true },
      },
      async ({ query, caller: { prefix } }, reply) => {
        const isAll = prefix === ''
        const list = isAll ? presence.list : () => presence.list().filter((deviceId) => deviceId.startsWith(prefix))
        const pieceOf = query.details === 'true' ? detailsOf : isAll ? allIdsOf : idsOf
        const ids = list()
        if (ids.length <= PIECE_DEVICES) return sendJson(reply, `[${pieceOf(ids, 0)}]`)
        return sendJson(reply, Readable.from(pieces(list, pieceOf), { highWaterMark: 1 }))
      },
    )

    app.get(
      '/presence',
      {
        schema: {
          summary: 'Who came and who went since a version, or all who are online where that is too long ago',
          description: 'For those who follow: asked again and again it costs what changed.',
          querystring: z.object({ since: z.string().max(100).optional() }),
          response: {
            200: z.union([
              z.object({ version: z.string(), online: z.array(z.string()), offline: z.array(z.string()) }),
              z.object({ version: z.string(), all: z.array(z.string()) }),
            ]),
            ...errors(400),
          },
        },
      },
      async ({ query }, reply) => {
        const changes = query.since === undefined ? null : presence.changesSince(query.since)
        if (changes) return changes
        // who comes or goes while it is sent is among the changes since this version
        const head = `{"version":${JSON.stringify(presence.version())},"all":`
        return sendJson(reply, Readable.from(pieces(presence.list, allIdsOf, head, '}'), { highWaterMark: 1 }))
      },
    )

    app.get(
      '/devices/:deviceId',
      {
        schema: {
          summary: 'Whether a device is online, and since when it was last heard',
          params: deviceParams,
          response: { 200: deviceSchema, ...errors(400) },
        },
        config: { invalid: { params: invalidDevice } },
      },
      async ({ params }) => describe(params.deviceId),
    )
  }

/** The members of a JSON array for the devices from index `from` to the end of its piece. */
type PieceOf = (ids: readonly string[], from: number) => string

const pieceEnd = (from: number) => from - (from % PIECE_DEVICES) + PIECE_DEVICES
const members = (ids: readonly string[], from: number, text: (deviceId: string) => string) =>
  ids.slice(from, pieceEnd(from)).map(text).join(',')

/** Makes each whole piece once as long as the list stays the same: it is often asked for. */
function keepPieces(pieceOf: PieceOf): PieceOf {
  let listed: readonly string[] = []
  let kept: string[] = []
  return (ids, from) => {
    if (from % PIECE_DEVICES !== 0) return pieceOf(ids, from)
    if (listed !== ids) {
      listed = ids
      kept = []
    }
    kept[from / PIECE_DEVICES] ??= pieceOf(ids, from)
    return kept[from / PIECE_DEVICES] as string
  }
}

/**
 * A list as JSON in pieces, made as fast as the caller reads. It goes on in the list of that moment after the last id
 * that was sent, so that callers who read slowly hold no old lists.
 */
async function* pieces(list: () => readonly string[], pieceOf: PieceOf, head = '', tail = ''): AsyncGenerator<string> {
  yield `${head}[`
  let last: string | undefined
  for (;;) {
    const ids = list()
    const from = last === undefined ? 0 : indexAfter(ids, last)
    if (from >= ids.length) break
    yield `${last === undefined ? '' : ','}${pieceOf(ids, from)}`
    last = ids[Math.min(pieceEnd(from), ids.length) - 1]
    await new Promise((resolve) => setImmediate(resolve)) // ingestion shares the event loop
  }
  yield `]${tail}`
}

/** Where in the sorted `ids` the first one after `id` stands. */
function indexAfter(ids: readonly string[], id: string): number {
  let from = 0
  let to = ids.length
  while (from < to) {
    const middle = (from + to) >> 1
    if ((ids[middle] as string) <= id) from = middle + 1
    else to = middle
  }
  return from
}
