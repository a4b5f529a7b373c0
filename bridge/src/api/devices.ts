// GET /devices and GET /devices/{device_id}: who is online.
import { Readable } from 'node:stream'
import { isDeviceId } from '@iot/shared/contract'
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { Presence } from '../presence.js'
import { errors } from './problem.js'

const CHUNK_DEVICES = 500 // described at a time: ingestion shares the event loop

export const deviceParams = z.object({
  deviceId: z
    .string()
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it excludes
    .regex(/^[^\u0000-\u001f\u007f-\u009f/+#]{1,256}$/)
    .refine(isDeviceId, 'A device id is one topic level of 1 to 256 bytes without control characters'),
})
const deviceSchema = z
  .object({
    device_id: z.string(),
    online: z.boolean(),
    last_seen: z.int().nullable().describe('Unix time in seconds'),
  })
  .meta({ id: 'Device' })

export const sendJson = (reply: FastifyReply, json: string | Buffer | Readable) =>
  reply.type('application/json; charset=utf-8').send(json) as never

export function addDeviceRoutes(untyped: FastifyInstance, presence: Pick<Presence, 'list' | 'lastSeen'>): void {
  const app = untyped.withTypeProvider<ZodTypeProvider>()
  let listed = { ids: presence.list(), json: Buffer.from(JSON.stringify(presence.list())) }
  const describe = (deviceId: string) => {
    const last_seen = presence.lastSeen(deviceId)
    return { device_id: deviceId, online: last_seen !== null, last_seen }
  }

  app.get(
    '/devices',
    {
      schema: {
        summary: 'The devices that are online now, sorted',
        querystring: z.object({ details: z.enum(['true', 'false']).optional() }),
        response: { 200: z.union([z.array(z.string()), z.array(deviceSchema)]), ...errors(400) },
      },
    },
    // text, for a hundred thousand ids need no check of ours on their way out
    async ({ query }, reply) => {
      const ids = presence.list()
      if (query.details === 'true') return sendJson(reply, Readable.from(described(ids)))
      if (listed.ids !== ids) listed = { ids, json: Buffer.from(JSON.stringify(ids)) }
      return sendJson(reply, listed.json)
    },
  )

  /** The JSON in pieces, made as fast as the caller reads them. */
  async function* described(ids: readonly string[]) {
    for (let from = 0; from < ids.length; from += CHUNK_DEVICES) {
      const chunk = ids.slice(from, from + CHUNK_DEVICES).map((id) => JSON.stringify(describe(id)))
      yield `${from === 0 ? '[' : ','}${chunk.join(',')}`
      await new Promise((resolve) => setImmediate(resolve))
    }
    yield ids.length === 0 ? '[]' : ']'
  }

  app.get(
    '/devices/:deviceId',
    {
      schema: {
        summary: 'Whether a device is online, and since when it was last heard',
        params: deviceParams,
        response: { 200: deviceSchema, ...errors(400) },
      },
    },
    async ({ params }) => describe(params.deviceId),
  )
}
