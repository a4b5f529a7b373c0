// POST /devices/{device_id}/command and GET /commands/{command_id}: commands, and what became of them.
import { randomUUID } from 'node:crypto'
import { deviceParams, duration, invalidDevice, sendJson } from '@iot/shared/http/calls'
import { errors, Problem } from '@iot/shared/http/problem'
import { withMember } from '@iot/shared/json-text'
import type { FastifyPluginAsync } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { CommandOutcome } from '../commands.js'
import type { Presence } from '../presence.js'
import { COMMAND_STATUSES, type CommandRecords, recordText } from './command-records.js'
import { type Answer, createOnce } from './once.js'

const MAX_SENDING = 1000 // calls that do not wait for the device
const MAX_WAITING = 1000
const MAX_WAIT_MS = 60_000
const MAX_TTL_MS = 86_400_000

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
    result_dropped: z.literal(true).optional().describe('There was a result; it made room for newer ones'),
  })
  .meta({ id: 'CommandRecord' })
const sentSchema = z.object({
  status: z.literal('sent'),
  device_id: z.string(),
  command_id: z.string(),
  no_subscribers: noSubscribers,
})

const OFFLINE = new Problem(404, 'DEVICE_OFFLINE', 'The device is not online: no recent hello')
const IN_USE = new Problem(409, 'COMMAND_ID_IN_USE', 'There is a command of this command_id already')
const KEY_REUSED = new Problem(409, 'IDEMPOTENCY_KEY_REUSED', 'This key was used for another command')
const UNKNOWN = new Problem(404, 'COMMAND_UNKNOWN', 'No command of this id is kept')
const NOT_CONNECTED = new Problem(
  503,
  'BROKER_NOT_CONNECTED',
  'The MQTT broker is not connected; the command was not delivered',
)
const CLOSED = new Problem(
  503,
  'BROKER_CLOSED_CONNECTION',
  'The MQTT broker closed the connection when the command was published: it went down, or does not allow it',
)
const TIMEOUT = new Problem(504, 'BROKER_TIMEOUT', 'The MQTT broker did not acknowledge the command in time')
const refused = (reason: string) => new Problem(502, 'BROKER_REFUSED', `The MQTT broker refused the command: ${reason}`)

const refusal = (problem: Problem, mayArrive = false): Answer => ({
  statusCode: problem.statusCode,
  json: () => JSON.stringify(problem.body()),
  mayArrive,
})

/** What went wrong, and whether the broker may have the command all the same. */
function refusalOf(outcome: Exclude<CommandOutcome, { result: 'acknowledged' }>): Answer {
  if (outcome.result === 'refused') return refusal(refused(outcome.reason))
  if (outcome.result === 'closed') return refusal(CLOSED, true)
  return refusal(outcome.result === 'timeout' ? TIMEOUT : NOT_CONNECTED, outcome.published)
}

/** How many calls of a kind may be under way at once; each holds its request for as long as it takes. */
function createSlots(count: number, code: string, what: string) {
  const problem = new Problem(503, code, `${count} calls ${what} already; nothing was sent`)
  let taken = 0
  return async <T>(run: () => Promise<T>): Promise<T> => {
    if (taken >= count) throw problem
    taken++
    return run().finally(() => {
      taken--
    })
  }
}

/** @param options.send publishes a command's JSON text to a device, to be dropped by the broker after `ttlMs` */
export const commandCalls =
  (options: {
    presence: Pick<Presence, 'isOnline'>
    records: CommandRecords
    send: (deviceId: string, text: string, ttlMs: number) => Promise<CommandOutcome>
    defaultTtlMs: number
  }): FastifyPluginAsync =>
  async (untyped) => {
    const app = untyped.withTypeProvider<ZodTypeProvider>()
    const { presence, records, send, defaultTtlMs } = options
    const once = createOnce()
    const whileSending = createSlots(MAX_SENDING, 'BUSY', 'wait for the broker')
    const whileWaiting = createSlots(MAX_WAITING, 'TOO_MANY_WAITING', 'wait for devices')
    app.addHook('preClose', async () => records.stop())

    const deliver = async (deviceId: string, text: string, ttlMs: number, waitMs?: number): Promise<Answer> => {
      if (!presence.isOnline(deviceId)) return refusal(OFFLINE)
      const { command_id: chosen } = JSON.parse(text) as z.infer<typeof commandSchema>
      const commandId = chosen ?? randomUUID()
      if (!records.add(commandId, deviceId, ttlMs)) return refusal(IN_USE)
      const full = chosen ? text : withMember(text, 'command_id', JSON.stringify(commandId))
      const outcome = await send(deviceId, full, ttlMs)
      if (outcome.result !== 'acknowledged') {
        const answer = refusalOf(outcome)
        records.withdraw(commandId, answer.mayArrive)
        return answer
      }
      records.acknowledged(commandId, outcome.hadSubscribers)
      const sent = { status: 'sent', device_id: deviceId, command_id: commandId }
      const json = JSON.stringify(outcome.hadSubscribers ? sent : { ...sent, no_subscribers: true })
      const accepted = { statusCode: 202, json: () => json, mayArrive: true }
      if (waitMs === undefined || !outcome.hadSubscribers) return accepted // nobody is there who could reply
      const record = await records.settled(commandId, waitMs)
      const isSettled = record?.status === 'succeeded' || record?.status === 'failed'
      return isSettled ? { statusCode: 200, json: () => recordText(record), mayArrive: true } : accepted
    }

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
            202: sentSchema,
            ...errors(400, 404, 409, 413, 415, 502, 503, 504),
          },
        },
        config: {
          invalid: {
            params: invalidDevice,
            body: {
              code: 'INVALID_COMMAND',
              message: 'The body must be a JSON object with a non-empty string "command"',
            },
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
      async ({ params: { deviceId }, body, query, headers, caller }, reply) => {
        const text = body as unknown as string
        const key = headers['idempotency-key']
        const run = () => deliver(deviceId, text, query.ttl ?? defaultTtlMs, query.wait)
        const occupy = query.wait === undefined ? whileSending : whileWaiting
        const answer = await occupy(() =>
          key === undefined ? run() : once(caller.name, key, `${deviceId}\n${text}`, run),
        )
        if (answer === null) throw KEY_REUSED
        return sendJson(reply.status(answer.statusCode as 200), answer.json())
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
        if (record === undefined) throw UNKNOWN
        return sendJson(reply, recordText(record))
      },
    )
  }

function parsed(text: unknown): unknown {
  try {
    return JSON.parse(String(text))
  } catch {
    return undefined
  }
}
