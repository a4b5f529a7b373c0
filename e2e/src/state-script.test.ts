// The two scripts alone, on a real Redis: the decision table of last_state, and what they reply.

import { isAboutTheData, wordsOf } from '@iot/consumer/redis/replies'
import { historyScript, stateScript } from '@iot/consumer/redis/scripts'
import { positionOf } from '@iot/shared/contract'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, beforeEach, expect, inject, test } from 'vitest'

const NOW = 1_700_000_000

let redis: Redis
let run = ''
const states = (...ids: string[]) => ids.flatMap((id) => [`state-${run}-${id}`, `guard-${run}-${id}`])

beforeAll(() => {
  redis = new Redis(inject('redisPort'), '127.0.0.1')
})
beforeEach(() => {
  run = Math.random().toString(36).slice(2)
})
afterAll(() => redis.quit())

const write = (id: string, payload: string, timestamp: number, position: string) =>
  redis.eval(stateScript.lua, 2, ...states(id), payload, timestamp, position)
const shown = (id: string) => redis.hgetall(`state-${run}-${id}`)
const guard = (id: string) => redis.get(`guard-${run}-${id}`)

type Position = [timestamp: number, partition: number, offset: number]
const set = { payload: '"new"', timestamp: String(NOW) }
const [STORED, STALE] = [
  [1, 0],
  [0, 1],
]

test.each<[string, Position, Position, number[] | undefined]>([
  ['a newer timestamp, a later offset', [NOW - 1, 2, 10], [NOW, 2, 11], STORED],
  ['the same timestamp, a later offset', [NOW, 2, 10], [NOW, 2, 11], STORED],
  ['the same record again', [NOW, 2, 10], [NOW, 2, 10], STORED],
  ['a newer timestamp, a lower offset: the topic was created again', [NOW - 1, 2, 10], [NOW, 2, 0], STORED],
  ['an older timestamp, a later offset: the clock was set back', [NOW + 60, 2, 10], [NOW, 2, 11], STORED],
  ['the same timestamp, a lower offset', [NOW, 2, 10], [NOW, 2, 9], STALE],
  ['an older timestamp, a lower offset', [NOW + 1, 2, 10], [NOW, 2, 9], STALE],
  ['another partition, a newer timestamp, a lower offset', [NOW - 1, 2, 10], [NOW, 1, 5], STORED],
  ['another partition, the same timestamp', [NOW, 2, 10], [NOW, 1, 5], STORED],
  ['another, greater partition, the same timestamp', [NOW, 2, 10], [NOW, 3, 5], STORED],
  ['another partition, an older timestamp, a later offset', [NOW + 1, 2, 10], [NOW, 1, 99], STALE],
  ['another, greater partition, an older timestamp', [NOW + 1, 2, 10], [NOW, 3, 99], STALE],
])('%s', async (_name, before, after, expected) => {
  const position = ([timestamp, partition, offset]: Position) => positionOf(timestamp, partition, String(offset))
  expect(await write('a', '"old"', before[0], position(before))).toEqual(STORED)
  expect(await write('a', set.payload, after[0], position(after))).toEqual(expected)
  const isSet = expected === STORED
  expect(await shown('a')).toEqual(isSet ? set : { payload: '"old"', timestamp: String(before[0]) })
  expect(await guard('a')).toBe(position(isSet ? after : before))
})

test('no guard, and one of another format: last_state is set', async () => {
  expect(await write('a', set.payload, NOW, positionOf(NOW, 0, '0'))).toEqual(STORED)
  await redis.set(`guard-${run}-a`, '9999999999:5:123')
  expect(await write('a', set.payload, NOW, positionOf(NOW, 0, '0'))).toEqual(STORED)
  expect(await shown('a')).toEqual(set)
  expect(await guard('a')).toBe(positionOf(NOW, 0, '0'))
})

test('one device of a call that is refused is named, and costs the others nothing', async () => {
  const keys = states('a', 'b', 'c', 'd')
  await redis.set(`state-${run}-b`, 'no hash')
  await redis.hset(`guard-${run}-c`, 'no', 'string')
  await redis.set(`guard-${run}-d`, positionOf(NOW, 0, '7'))
  const args = ['a', 'b', 'c', 'd'].flatMap((id) => [`"${id}"`, String(NOW), positionOf(NOW, 0, '5')])
  const reply = (await redis.eval(stateScript.lua, keys.length, ...keys, ...args)) as unknown[]
  expect(reply).toEqual([1, 1, 2, expect.any(String), 3, expect.any(String)])
  for (const words of [reply[3], reply[5]]) expect(isAboutTheData(wordsOf(words as string))).toBe(true)
  expect(await shown('a')).toEqual({ payload: '"a"', timestamp: String(NOW) })
})

test('histories: all members, the trim, the expiry, each message published; the refused one is named', async () => {
  const [one, two, three] = ['one', 'two', 'three'].map((id) => `history-${run}-${id}`) as [string, string, string]
  await redis.set(two, 'no sorted set')
  await redis.zadd(one, 50, 'old', 100, 'kept')
  const listener = redis.duplicate()
  const heard: string[] = []
  await listener.subscribe(`to-${run}`)
  listener.on('message', (_channel, text) => heard.push(text))
  const many = Array.from({ length: 2500 }, (_, index) => [String(200 + index), `m${index}`]).flat()
  const device = (entries: string[]) => ['(100', `to-${run}`, String(entries.length / 2), ...entries]
  const args = ['600', ...device(['200', 'x', '200', 'y']), ...device(['200', 'lost']), ...device(many)]
  const reply = (await redis.eval(historyScript.lua, 3, one, two, three, ...args)) as unknown[]
  expect(reply).toEqual([2, 0, 2, expect.any(String)])
  expect(isAboutTheData(wordsOf(reply[3] as string))).toBe(true)
  expect(await redis.zrange(one, '0', '-1', 'WITHSCORES')).toEqual(['kept', '100', 'x', '200', 'y', '200'])
  expect(await redis.zcard(three)).toBe(2500)
  expect(await redis.ttl(one)).toBeGreaterThan(590)
  await listener.ping() // replies come after what was published before
  expect(heard).toEqual(['x', 'y', ...Array.from({ length: 2500 }, (_, index) => `m${index}`)])
  listener.disconnect()
})
