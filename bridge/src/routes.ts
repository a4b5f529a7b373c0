// The calls of the REST API, with the zod schemas that check them and describe them in /openapi.json.
import { randomUUID } from 'node:crypto'
import { isDeviceId } from '@iot/shared/contract'
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { COMMAND_STATUSES, type CommandRecords } from './command-records.js'
import type { CommandOutcome } from './commands.js'
import type { Presence } from './presence.js'

const MAX_IDEMPOTENCY_KEYS = 10_000
const MAX_WAIT_MS = 60_000
const MAX_TTL_MS = 86_400_000

/** An answer that is an error: Fastify's own shape, `code` is what programs look at. */
export const errorSchema = z
  .object({ statusCode: z.int(), code: z.string(), error: z.string(), message: z.string() })
  .meta({ id: 'Error' })

const REASONS: Record<number, string> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  404: 'Not Found',
  405: 'Method Not Allowed',
  409: 'Conflict',
  413: 'Content Too Large',
  415: 'Unsupported Media Type',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
}

/** The body of an error answer. */
export const failure = (statusCode: number, code: string, message: string): z.infer<typeof errorSchema> => ({
  statusCode,
  code,
  error: REASONS[statusCode] ?? 'Error',
  message,
})

const deviceParams = z.object({
  deviceId: z
    .string()
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it excludes
    .regex(/^[^\u0000-\u001f\u007f-\u009f/+#]{1,256}$/)
    .refine(isDeviceId, 'A device id is one topic level of 1 to 256 bytes without control characters'),
})
const duration = z
  .string()
  .regex(/^[1-9]\d{0,5}(ms|s|m)$/, 'must be a duration such as 500ms, 5s or 2m')
  .transform((text) => Number.parseInt(text, 10) * (text.endsWith('ms') ? 1 : text.endsWith('s') ? 1000 : 60_000))
const deviceSchema = z
  .object({
    device_id: z.string(),
    online: z.boolean(),
    last_seen: z.int().nullable().describe('Unix time in seconds'),
  })
  .meta({ id: 'Device' })
const commandSchema = z
  .looseObject({ command: z.string().min(1), command_id: z.string().min(1).max(200).optional() })
  .meta({ id: 'Command', description: 'Goes to the device as it is, with a command_id where it has none' })
const recordSchema = z
  .object({
    command_id: z.string(),
    device_id: z.string(),
    status: z.enum(COMMAND_STATUSES),
    created_at: z.int().describe('Unix time in seconds'),
    result: z.unknown().optional(),
  })
  .meta({ id: 'CommandRecord' })
const errors = <Code extends number>(...codes: Code[]) =>
  Object.fromEntries([...codes, 401, 429, 500].map((code) => [code, errorSchema])) as Record<
    Code | 401 | 429 | 500,
    typeof errorSchema
  >

const REFUSALS = {
  disconnected: failure(503, 'BROKER_NOT_CONNECTED', 'The MQTT broker is not connected; the command was not delivered'),
  timeout: failure(504, 'BROKER_TIMEOUT', 'The MQTT broker did not acknowledge the command in time'),
}

type Answer = { statusCode: number; body: object; wasSent: boolean }

/** @param send publishes a command's JSON text to a device, to be dropped by the broker after `ttlMs` */
export function addRoutes(
  untyped: FastifyInstance,
  presence: Pick<Presence, 'list' | 'isOnline' | 'lastSeen'>,
  records: CommandRecords,
  send: (deviceId: string, text: string, ttlMs: number) => Promise<CommandOutcome>,
  defaultTtlMs: number,
): void {
  const app = untyped.withTypeProvider<ZodTypeProvider>()
  const answered = new Map<string, { request: string; answer: Promise<Answer> }>() // by Idempotency-Key, oldest first
  let listed = { ids: presence.list(), text: Buffer.from(JSON.stringify(presence.list())) }
  const json = (reply: FastifyReply, text: string | Buffer) => reply.type('application/json; charset=utf-8').send(text)
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
      if (query.details === 'true') return json(reply, JSON.stringify(ids.map(describe))) as never
      if (listed.ids !== ids) listed = { ids, text: Buffer.from(JSON.stringify(ids)) }
      return json(reply, listed.text) as never
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
    },
    async ({ params }) => describe(params.deviceId),
  )

  app.post(
    '/devices/:deviceId/command',
    {
      schema: {
        summary: 'Sends a command to a device that is online',
        params: deviceParams,
        body: commandSchema,
        querystring: z.object({
          wait: duration.optional().describe("Waits so long for the device's own reply, at most 60s"),
          ttl: duration.optional().describe('The broker drops the command after this time, a day at most'),
        }),
        headers: z.looseObject({
          'idempotency-key': z.string().min(1).max(200).optional().describe('The same key never sends twice'),
        }),
        response: {
          200: recordSchema.describe("The device's own reply"),
          202: z.object({ status: z.literal('sent'), device_id: z.string(), command_id: z.string() }),
          ...errors(400, 404, 409, 413, 415, 503, 504),
        },
      },
      // the body stays text: what the device gets is what the caller wrote, numbers included
      validatorCompiler: ({ schema, httpPart }) => {
        const check = schema as unknown as z.ZodType
        return (data: unknown) => {
          const result = check.safeParse(httpPart === 'body' ? parsed(data) : data)
          if (!result.success) return { error: result.error as Error }
          return { value: httpPart === 'body' ? data : result.data }
        }
      },
    },
    async ({ params: { deviceId }, body, query, headers }, reply) => {
      const text = body as unknown as string
      const key = headers['idempotency-key']
      const run = () => deliver(deviceId, text, Math.min(query.ttl ?? defaultTtlMs, MAX_TTL_MS), query.wait)
      if (key === undefined) return answer(reply, await run())
      const request = `${deviceId}\n${text}`
      const before = answered.get(key)
      if (before && before.request !== request) {
        return reply.code(409).send(failure(409, 'IDEMPOTENCY_KEY_REUSED', 'This key was used for another command'))
      }
      if (before) return answer(reply, await before.answer)
      const [oldest] = answered.keys()
      if (answered.size >= MAX_IDEMPOTENCY_KEYS && oldest !== undefined) answered.delete(oldest)
      const own = run()
      answered.set(key, { request, answer: own })
      const result = await own.catch((error) => {
        answered.delete(key)
        throw error
      })
      if (!result.wasSent) answered.delete(key) // nothing was sent: the same key may try again
      return answer(reply, result)
    },
  )

  const answer = (reply: FastifyReply, { statusCode, body }: Answer) =>
    json(reply.code(statusCode), JSON.stringify(body)) as never

  const deliver = async (deviceId: string, text: string, ttlMs: number, waitMs?: number): Promise<Answer> => {
    const refuse = (body: z.infer<typeof errorSchema>, wasSent = false) => ({
      statusCode: body.statusCode,
      body,
      wasSent,
    })
    if (!presence.isOnline(deviceId)) {
      return refuse(failure(404, 'DEVICE_OFFLINE', 'The device is not online: it has not said hello of late'))
    }
    const given = (JSON.parse(text) as z.infer<typeof commandSchema>).command_id
    const commandId = given ?? randomUUID()
    if (!records.add(commandId, deviceId, ttlMs)) {
      return refuse(failure(409, 'COMMAND_ID_IN_USE', 'There is a command of this command_id already'))
    }
    const outcome = await send(deviceId, given ? text : withId(text, commandId), ttlMs)
    if (outcome.result !== 'acknowledged') {
      records.withdraw(commandId)
      return refuse(REFUSALS[outcome.result], outcome.published)
    }
    records.acknowledged(commandId)
    const record = waitMs ? await records.settled(commandId, Math.min(waitMs, MAX_WAIT_MS)) : undefined
    if (record?.status === 'succeeded' || record?.status === 'failed') {
      return { statusCode: 200, body: record, wasSent: true }
    }
    return { statusCode: 202, body: { status: 'sent', device_id: deviceId, command_id: commandId }, wasSent: true }
  }

  app.get(
    '/commands/:commandId',
    {
      schema: {
        summary: 'What became of a command; the newest 10,000 are kept, in memory',
        params: z.object({ commandId: z.string().min(1).max(200) }),
        response: { 200: recordSchema, ...errors(400, 404) },
      },
    },
    async ({ params }, reply) => {
      const record = records.get(params.commandId)
      if (record) return record
      return reply.code(404).send(failure(404, 'COMMAND_UNKNOWN', 'No command of this id is kept'))
    },
  )
}

/** Adds a last member to a JSON object's text; the rest stays as it was written. */
const withId = (text: string, commandId: string) =>
  `${text.slice(0, text.lastIndexOf('}'))},"command_id":${JSON.stringify(commandId)}}`

function parsed(text: unknown): unknown {
  try {
    return JSON.parse(String(text))
  } catch {
    return undefined
  }
}
