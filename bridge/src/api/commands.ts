// POST /devices/{device_id}/command and GET /commands/{command_id}: commands, and what became of them.
import { createHash, randomUUID } from 'node:crypto'
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { CommandOutcome } from '../commands.js'
import type { Presence } from '../presence.js'
import { COMMAND_STATUSES, type CommandRecords, recordText } from './command-records.js'
import { deviceParams, sendJson } from './devices.js'
import { withMember } from './json-text.js'
import { errors, type Problem, problem, sendProblem } from './problem.js'

const MAX_IDEMPOTENCY_KEYS = 10_000
const MAX_IDEMPOTENCY_BYTES = 16_000_000 // of the answers that are kept
const MAX_WAITING = 1000
const MAX_WAIT_MS = 60_000
const MAX_TTL_MS = 86_400_000

const duration = (maxMs: number, maxText: string) =>
  z
    .string()
    .regex(/^[1-9]\d{0,7}(ms|s|m)$/, 'must be a duration such as 500ms, 5s or 2m')
    .transform((text) => Number.parseInt(text, 10) * (text.endsWith('ms') ? 1 : text.endsWith('s') ? 1000 : 60_000))
    .refine((ms) => ms <= maxMs, `must be at most ${maxText}`)
const commandSchema = z
  .looseObject({ command: z.string().min(1), command_id: z.string().min(1).max(200).optional() })
  .meta({ id: 'Command', description: 'Goes to the device as it is, with a command_id where it has none' })
const noSubscribers = z
  .literal(true)
  .optional()
  .describe('The broker has it, but nobody was subscribed (MQTT 5 brokers tell)')
const recordSchema = z
  .object({
    command_id: z.string(),
    device_id: z.string(),
    status: z.enum(COMMAND_STATUSES),
    created_at: z.int().describe('Unix time in seconds'),
    no_subscribers: noSubscribers,
    result: z.unknown().optional(),
  })
  .meta({ id: 'CommandRecord' })

const REFUSALS = {
  disconnected: problem(503, 'BROKER_NOT_CONNECTED', 'The MQTT broker is not connected; the command was not delivered'),
  closed: problem(
    503,
    'BROKER_CLOSED_CONNECTION',
    'The MQTT broker closed the connection when the command was published: it went down, or does not allow it',
  ),
  timeout: problem(504, 'BROKER_TIMEOUT', 'The MQTT broker did not acknowledge the command in time'),
}
const OFFLINE = problem(404, 'DEVICE_OFFLINE', 'The device is not online: no recent hello')
const IN_USE = problem(409, 'COMMAND_ID_IN_USE', 'There is a command of this command_id already')
const KEY_REUSED = problem(409, 'IDEMPOTENCY_KEY_REUSED', 'This key was used for another command')
const TOO_MANY_WAITING = problem(
  503,
  'TOO_MANY_WAITING',
  `${MAX_WAITING} calls wait for devices already; nothing was sent`,
)
const UNKNOWN = problem(404, 'COMMAND_UNKNOWN', 'No command of this id is kept')

type Answer = { statusCode: number; json: string; wasSent: boolean }
const refusal = (body: Problem, wasSent = false): Answer => ({
  statusCode: body.statusCode,
  json: JSON.stringify(body),
  wasSent,
})

/** @param send publishes a command's JSON text to a device, to be dropped by the broker after `ttlMs` */
export function addCommandRoutes(
  untyped: FastifyInstance,
  presence: Pick<Presence, 'isOnline'>,
  records: CommandRecords,
  send: (deviceId: string, text: string, ttlMs: number) => Promise<CommandOutcome>,
  defaultTtlMs: number,
): void {
  const app = untyped.withTypeProvider<ZodTypeProvider>()
  const once = createOnce()
  let waiting = 0

  const deliver = async (deviceId: string, text: string, ttlMs: number, waitMs?: number): Promise<Answer> => {
    if (!presence.isOnline(deviceId)) return refusal(OFFLINE)
    if (waitMs !== undefined && waiting >= MAX_WAITING) return refusal(TOO_MANY_WAITING)
    const given = (JSON.parse(text) as z.infer<typeof commandSchema>).command_id
    const commandId = given ?? randomUUID()
    if (!records.add(commandId, deviceId, ttlMs)) return refusal(IN_USE)
    const outcome = await send(
      deviceId,
      given ? text : withMember(text, 'command_id', JSON.stringify(commandId)),
      ttlMs,
    )
    if (outcome.result !== 'acknowledged') {
      records.withdraw(commandId, outcome.published)
      if (outcome.result !== 'refused') return refusal(REFUSALS[outcome.result], outcome.published)
      return refusal(problem(502, 'BROKER_REFUSED', `The MQTT broker refused the command: ${outcome.reason}`), true)
    }
    records.acknowledged(commandId, outcome.hadSubscribers)
    return waitMs === undefined ? accepted(deviceId, commandId) : settled(deviceId, commandId, waitMs)
  }

  const accepted = (deviceId: string, commandId: string): Answer => {
    const no_subscribers = records.get(commandId)?.no_subscribers
    const json = JSON.stringify({ status: 'sent', device_id: deviceId, command_id: commandId, no_subscribers })
    return { statusCode: 202, json, wasSent: true }
  }

  const settled = async (deviceId: string, commandId: string, waitMs: number): Promise<Answer> => {
    waiting++
    const record = await records.settled(commandId, waitMs).finally(() => {
      waiting--
    })
    const isDone = record?.status === 'succeeded' || record?.status === 'failed'
    return isDone ? { statusCode: 200, json: recordText(record), wasSent: true } : accepted(deviceId, commandId)
  }

  const answer = (reply: FastifyReply, { statusCode, json }: Answer) => sendJson(reply.code(statusCode), json)

  app.post(
    '/devices/:deviceId/command',
    {
      schema: {
        summary: 'Sends a command to a device that is online',
        params: deviceParams,
        body: commandSchema,
        querystring: z.object({
          wait: duration(MAX_WAIT_MS, '60s')
            .optional()
            .describe("Waits so long for the device's own reply, at most 60s"),
          ttl: duration(MAX_TTL_MS, 'a day').optional().describe('The broker drops the command after this time'),
        }),
        headers: z.looseObject({
          'idempotency-key': z.string().min(1).max(200).optional().describe('The same key never sends twice'),
        }),
        response: {
          200: recordSchema.describe("The device's own reply"),
          202: z.object({
            status: z.literal('sent'),
            device_id: z.string(),
            command_id: z.string(),
            no_subscribers: noSubscribers,
          }),
          ...errors(400, 404, 409, 413, 415, 502, 503, 504),
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
      const run = () => deliver(deviceId, text, query.ttl ?? defaultTtlMs, query.wait)
      const key = headers['idempotency-key']
      if (key === undefined) return answer(reply, await run())
      const result = await once(`${headers.authorization ?? ''}\n${key}`, `${deviceId}\n${text}`, run)
      return result ? answer(reply, result) : (sendProblem(reply, KEY_REUSED) as never)
    },
  )

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
      return record ? sendJson(reply, recordText(record)) : (sendProblem(reply, UNKNOWN) as never)
    },
  )
}

/** What is wrong with a request that a schema of these calls refuses. */
export function describeInvalid({ url }: { url: string }, part: string): Problem | null {
  if (part === 'body') {
    return problem(400, 'INVALID_COMMAND', 'The body must be a JSON object with a non-empty string "command"')
  }
  const words = 'A device id is one topic level of 1 to 256 bytes without control characters'
  return part === 'params' && url.startsWith('/devices') ? problem(400, 'INVALID_DEVICE_ID', words) : null
}

const digest = (text: string) => createHash('sha256').update(text).digest('base64')

/**
 * Runs what has a key once, and gives the first answer again to whoever repeats it; null for another request under a
 * key that is taken. Where nothing was sent the key is free again. Neither keys nor requests are kept, only their
 * hashes; of the answers the newest ones.
 */
function createOnce() {
  const kept = new Map<string, { request: string; answer: Promise<Answer>; bytes: number }>() // oldest first
  let bytes = 0
  const drop = (name: string) => {
    bytes -= kept.get(name)?.bytes ?? 0
    kept.delete(name)
  }

  return async (key: string, requestText: string, run: () => Promise<Answer>): Promise<Answer | null> => {
    const name = digest(key)
    const request = digest(requestText)
    const before = kept.get(name)
    if (before) return before.request === request ? before.answer : null
    const entry = { request, answer: run(), bytes: 0 }
    kept.set(name, entry)
    try {
      const result = await entry.answer
      if (kept.get(name) === entry) {
        if (!result.wasSent) drop(name)
        else bytes += entry.bytes = result.json.length
      }
      for (const oldest of kept.keys()) {
        if (kept.size <= MAX_IDEMPOTENCY_KEYS && bytes <= MAX_IDEMPOTENCY_BYTES) break
        drop(oldest)
      }
      return result
    } catch (error) {
      drop(name)
      throw error
    }
  }
}

function parsed(text: unknown): unknown {
  try {
    return JSON.parse(String(text))
  } catch {
    return undefined
  }
}
