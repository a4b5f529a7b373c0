// GET /devices/{device_id}/state: the last state, as the device wrote it.
import { deviceParams, invalidDevice, sendJson } from '@iot/shared/http/calls'
import { errors, Problem } from '@iot/shared/http/problem'
import type { FastifyPluginAsync } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { Presence } from '../presence.js'
import { NOT_READABLE, type RedisReader } from '../redis/connection.js'
import { readStates, type State } from '../redis/states.js'

export const stateSchema = z
  .object({
    device_id: z.string(),
    payload: z.unknown().describe('As the device wrote it, each number with its own digits'),
    timestamp: z.number().describe('Unix time in seconds'),
    position: z.string().nullable().describe('Partition and offset of the record on Kafka: a feed may begin behind it'),
    online: z.boolean().nullable().describe('null where the bridge does not answer'),
  })
  .meta({ id: 'State' })

export const UNKNOWN = new Problem(404, 'DEVICE_UNKNOWN', 'There is no last state of this device')

/** A state as JSON, of texts. */
export const stateText = (deviceId: string, { payload, timestamp, position }: State, online: boolean | null): string =>
  `{"device_id":${JSON.stringify(deviceId)},"payload":${payload},"timestamp":${timestamp}` +
  `,"position":${JSON.stringify(position)},"online":${online}}`

export const stateCalls =
  ({ redis, presence }: { redis: RedisReader; presence: Pick<Presence, 'current'> }): FastifyPluginAsync =>
  async (untyped) => {
    const app = untyped.withTypeProvider<ZodTypeProvider>()
    app.get(
      '/devices/:deviceId/state',
      {
        schema: {
          summary: 'The last state of a device, with the position of its record',
          params: deviceParams,
          headers: z.looseObject({ 'if-none-match': z.string().optional() }),
          response: {
            200: stateSchema,
            304: z.null().describe('It is still the one that If-None-Match names'),
            ...errors(400, 404, 504),
          },
        },
        config: { invalid: { params: invalidDevice } },
      },
      async ({ params: { deviceId }, headers }, reply) => {
        const [state] = await readStates(redis, [deviceId])
        if (state === 'unreadable') throw NOT_READABLE
        if (!state) throw UNKNOWN
        const online = presence.current(deviceId)
        void reply.header('cache-control', 'no-cache')
        if (state.position !== null) {
          const tag = `"${state.position}:${online === null ? 'unknown' : online ? 'on' : 'off'}"`
          void reply.header('etag', tag)
          if (hasTag(headers['if-none-match'], tag)) return reply.code(304).send(null as never)
        }
        return sendJson(reply, stateText(deviceId, state, online))
      },
    )
  }

const hasTag = (header: string | undefined, tag: string): boolean =>
  (header ?? '').split(',').some((one) => ['*', tag, `W/${tag}`].includes(one.trim()))
