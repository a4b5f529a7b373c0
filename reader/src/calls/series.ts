// GET /devices/{device_id}/series and …/series/fields: a device's numbers over time, ready for a chart.
import { historyKey, lastStateKey } from '@iot/shared/contract'
import { deviceParams, duration, invalidDevice, sendJson } from '@iot/shared/http/calls'
import { errors, Problem } from '@iot/shared/http/problem'
import { createFieldReader, numberFields } from '@iot/shared/json-text'
import type { FastifyPluginAsync } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { LongReads } from '../long-reads.js'
import { NOT_READABLE, type RedisReader } from '../redis/connection.js'
import { type Range, readHistory } from '../redis/history.js'
import { bucketsOf, createSeries, goodStep, MAX_BUCKETS, type Span, stepFor } from '../series.js'
import { fields, range, rangeOf } from './query.js'
import { UNKNOWN } from './state.js'

const MAX_MESSAGES = 1_000_000
const MAX_FIELDS = 100

const tooLarge = (count: number) =>
  new Problem(400, 'RANGE_TOO_LARGE', `${count} messages are in this range, at most ${MAX_MESSAGES} are read`)
const tooMany = (buckets: number, step: number) =>
  new Problem(400, 'TOO_MANY_BUCKETS', `${buckets} buckets, at most ${MAX_BUCKETS} are given: every=${step}s fits`)

const numbers = z.array(z.number().nullable())
const seriesSchema = z
  .object({
    device_id: z.string(),
    every: z.number().describe('Seconds'),
    time: z.array(z.number()).describe('Where each bucket begins, Unix seconds'),
    fields: z.record(
      z.string(),
      z.object({ min: numbers, max: numbers, avg: numbers, last: numbers, count: z.array(z.int()) }),
    ),
  })
  .meta({ id: 'Series' })

/** What a range really spans: open ends are those of the history, or now. @throws {Problem} of an unknown device, RANGE_TOO_LARGE */
async function spanOf(read: RedisReader['read'], deviceId: string, { from, to }: Range): Promise<Span> {
  const key = historyKey(deviceId)
  const edge = ['LIMIT', 0, 1, 'WITHSCORES']
  const [start, end] = [from ?? '-inf', to === null ? '+inf' : `(${to}`]
  const [count, oldest, newest, isKnown] = await read([
    ['ZCOUNT', key, start, end],
    ['ZRANGE', key, start, end, 'BYSCORE', ...edge],
    ['ZRANGE', key, end, start, 'BYSCORE', 'REV', ...edge],
    ['EXISTS', key, lastStateKey(deviceId)],
  ])
  if (isKnown === 0) throw UNKNOWN
  if (!Array.isArray(oldest) || !Array.isArray(newest)) throw NOT_READABLE
  if (Number(count) > MAX_MESSAGES) throw tooLarge(Number(count))
  const now = Date.now() / 1000
  return { from: from ?? Number(oldest[1] ?? now), to: to ?? Math.max(now, Number(newest[1] ?? 0) + 1) }
}

/** The one text that is made of all of a range. */
const textOf = async (texts: AsyncIterable<string>) => {
  let all = ''
  for await (const text of texts) all += text
  return all
}

export const seriesCalls =
  ({ longReads }: { longReads: LongReads }): FastifyPluginAsync =>
  async (untyped) => {
    const app = untyped.withTypeProvider<ZodTypeProvider>()
    const config = { invalid: { params: invalidDevice } }

    async function* series(
      read: RedisReader['read'],
      deviceId: string,
      query: { range: Range; fields: string[]; everyS: number | undefined },
    ): AsyncGenerator<string> {
      const span = await spanOf(read, deviceId, query.range)
      const everyS = query.everyS ?? goodStep(span)
      const buckets = bucketsOf(span, everyS)
      if (buckets > MAX_BUCKETS) throw tooMany(buckets, stepFor(span, MAX_BUCKETS))
      const found = createSeries(query.fields, span, everyS)
      const textsOf = createFieldReader(query.fields.map((field) => `payload.${field}`))
      for await (const page of readHistory(read, deviceId, query.range, 'asc'))
        for (const { member, score } of page) found.add(Number(score), textsOf(member))
      yield `{"device_id":${JSON.stringify(deviceId)},"every":${everyS},${found.text()}}`
    }

    async function* seen(read: RedisReader['read'], deviceId: string, range: Range): AsyncGenerator<string> {
      await spanOf(read, deviceId, range)
      const payloadOf = createFieldReader(['payload'])
      const found = new Set<string>()
      for await (const page of readHistory(read, deviceId, range, 'desc'))
        for (const { member } of page) for (const field of numberFields(payloadOf(member)[0] ?? '')) found.add(field)
      yield JSON.stringify([...found].slice(0, MAX_FIELDS).sort())
    }

    app.get(
      '/devices/:deviceId/series',
      {
        exposeHeadRoute: false, // it would read everything
        schema: {
          summary: "A device's numbers in buckets of time, ready for a chart",
          description: `At most ${MAX_BUCKETS} buckets; min, max and last have the digits that the device wrote.`,
          params: deviceParams,
          querystring: z.object({
            ...range,
            fields: fields.describe('Names with dots for members of members: temperature,gps.speed'),
            every: duration(315_360_000_000, '87600h').optional().describe('of a bucket; chosen where it is not given'),
          }),
          response: { 200: seriesSchema, ...errors(400, 404, 504) },
        },
        config,
      },
      async ({ params: { deviceId }, query }, reply) => {
        const everyS = query.every === undefined ? undefined : query.every / 1000
        const wanted = { range: rangeOf(query), fields: query.fields, everyS }
        const text = await textOf(await longReads.begin((read) => series(read, deviceId, wanted)))
        return sendJson(reply.header('cache-control', 'no-store'), text)
      },
    )

    app.get(
      '/devices/:deviceId/series/fields',
      {
        exposeHeadRoute: false,
        schema: {
          summary: `The fields of a device that are numbers, ${MAX_FIELDS} at most`,
          params: deviceParams,
          querystring: z.object(range),
          response: { 200: z.array(z.string()), ...errors(400, 404, 504) },
        },
        config,
      },
      async ({ params: { deviceId }, query }, reply) => {
        const text = await textOf(await longReads.begin((read) => seen(read, deviceId, rangeOf(query))))
        return sendJson(reply.header('cache-control', 'no-store'), text)
      },
    )
  }
