// GET /flow and GET /dead-letters: how readings flow, and what could not.
import { DEAD_LETTER_REASONS } from '@iot/shared/contract'
import { describe } from '@iot/shared/errors'
import { count, sendJson } from '@iot/shared/http/calls'
import { errors, Problem } from '@iot/shared/http/problem'
import type { FastifyPluginAsync } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { DeadLetters } from '../dead-letters.js'
import type { Flow } from '../flow.js'

const LIMIT = 50

const known = z.number().nullable()
const server = { ready: z.boolean(), problem: z.string().nullable() }
const service = {
  url: z.string(),
  ready: z.boolean().nullable().describe('null where it does not answer'),
  not_ready: z.record(z.string(), z.string()),
}
const bridgeSchema = z.object({
  ...service,
  received_per_second: known,
  published_per_second: known,
  in_flight: known,
  online: known,
  mqtt: z.object({ url: z.string(), topic_prefix: z.string() }).nullable().describe('Where devices publish'),
})
const consumerSchema = z.object({ ...service, stored_per_second: known, newest_stored_age_seconds: known })
const partitionSchema = z.object({ partition: z.int(), leader: z.int().nullable(), end: known, lag: known })
const flowSchema = z
  .object({
    timestamp: z.int(),
    bridges: z.array(bridgeSchema),
    kafka: z.object({
      ...server,
      records_per_second: known,
      lag: known.describe('Records that are not stored yet'),
      partitions: z.array(partitionSchema).nullable(),
    }),
    consumers: z.array(consumerSchema),
    redis: z.object(server),
    dead_letters: z.object({ last_5_minutes: known }),
    unknown: z.array(z.string()).describe('What did not answer, and why: its figures are null'),
  })
  .meta({ id: 'Flow' })

const letterSchema = z.object({
  offset: z.int(),
  timestamp: z.number(),
  reason: z.string(),
  source: z.string(),
  device_id: z.string().nullable(),
  bytes: z.int(),
  text: z.string().optional().describe('The first 4 KB'),
  base64: z.string().optional().describe('The first 4 KB of what is no text'),
})
const lettersSchema = z
  .object({
    letters: z.array(letterSchema).describe('Newest first'),
    looked_at: z.int().describe('How many of the newest were looked through'),
    total: z.int().describe('How many are kept'),
  })
  .meta({ id: 'DeadLetters' })

export const flowCalls =
  ({ flow, letters }: { flow: Flow; letters: DeadLetters }): FastifyPluginAsync =>
  async (untyped) => {
    const app = untyped.withTypeProvider<ZodTypeProvider>()
    app.get(
      '/flow',
      {
        schema: {
          summary: 'How readings flow: rates over ten seconds, what waits, who is ready',
          description: 'Takes a second where nobody has asked lately. What is not known is null.',
          response: { 200: flowSchema, ...errors() },
        },
      },
      async (_request, reply) => {
        void reply.header('cache-control', 'no-store')
        return sendJson(reply, await flow.now())
      },
    )
    app.get(
      '/dead-letters',
      {
        schema: {
          summary: 'The newest dead letters',
          querystring: z.object({
            reason: z.enum(DEAD_LETTER_REASONS).optional(),
            limit: count(1000).optional().describe('50 where it is not given'),
          }),
          response: { 200: lettersSchema, ...errors(400) },
        },
      },
      async ({ query: { limit = LIMIT, reason } }, reply) => {
        void reply.header('cache-control', 'no-store')
        return letters.newest(limit, reason).catch((error) => {
          if (error instanceof Problem) throw error
          throw new Problem(503, 'KAFKA_UNAVAILABLE', `Kafka: ${describe(error)}`)
        })
      },
    )
  }
