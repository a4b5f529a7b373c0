// The two scripts alone, on a real Redis: the decision table of last_state, and what they reply.

import { isAboutTheData, wordsOf } from '@iot/consumer/redis/replies'
import {
  MEMBER_BYTES,
  NEW_DEVICE,
  NO_LIMITS,
  sparingScripts,
  storingScripts,
  trimScript,
} from '@iot/consumer/redis/scripts'
import { positionOf } from '@iot/shared/contract'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, beforeEach, expect, inject, test } from 'vitest'

const NOW = 1_700_000_000
const { state: stateScript, history: historyScript } = storingScripts(NO_LIMITS)

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

/** The arguments of a history's device: below, channel, and so many readings of the same score. */
const readings = (count: number, text = (index: number) => `m${index}`) => [
  ...['(100', '', String(count)],
  ...Array.from({ length: count }, (_, index) => [String(200 + index), text(index)]).flat(),
]

test('a history keeps its newest readings, as many as it may, and those that were cut are counted', async () => {
  const { history } = storingScripts({ ...NO_LIMITS, historyReadings: 10 })
  const keys = ['long', 'short'].map((id) => `history-${run}-${id}`)
  const reply = await redis.eval(history.lua, 2, ...keys, '600', ...readings(25), ...readings(5))
  expect(reply).toEqual([2, 15])
  expect(await redis.zrange(keys[0] as string, '0', '0')).toEqual(['m15'])
  expect(await Promise.all(keys.map((key) => redis.zcard(key)))).toEqual([10, 5])
})

test('a history has about the bytes that it may, whatever the order of sizes, and always its newest', async () => {
  const most = 200_000
  const { history } = storingScripts({ ...NO_LIMITS, historyBytes: most })
  const store = (key: string, measured: number, entries: string[]) =>
    redis.eval(history.lua, 1, key, '600', measured, ...entries) as Promise<number[]>
  const key = `history-${run}`
  // small ones first: who looks at the beginning only sees nothing of it
  const entries = readings(3000, (index) => `m${index}`.padEnd(index < 1000 ? 10 : 500, 'x'))
  expect(await store(key, 0, entries)).toEqual([1, 0])
  const [, cut = 0] = await store(key, 1, readings(0))
  expect(cut).toBeGreaterThan(1000)
  for (let again = 0; again < 5; again++) await store(key, 1, readings(0))
  const kept = await redis.zrange(key, '0', '-1')
  const bytes = kept.reduce((sum, text) => sum + text.length + MEMBER_BYTES, 0)
  expect(bytes).toBeLessThan(1.2 * most)
  expect(bytes).toBeGreaterThan(0.6 * most)
  expect(kept.at(-1)).toMatch(/^m2999x/)
  const huge = `history-${run}-huge`
  expect(
    await store(
      huge,
      1,
      readings(2, () => Math.random() + 'x'.repeat(most)),
    ),
  ).toEqual([1, 1])
  expect(await redis.zcard(huge)).toBe(1)
})

test('a last state that is not renewed goes, and its guard with it', async () => {
  const { state } = storingScripts({ ...NO_LIMITS, lastStateSeconds: 100 })
  const store = (timestamp: number) =>
    redis.eval(state.lua, 2, ...states('a'), '1', timestamp, positionOf(timestamp, 0, '0'))
  const ttls = () => Promise.all(states('a').map((key) => redis.ttl(key)))
  expect(await store(NOW)).toEqual(STORED)
  for (const ttl of await ttls()) expect(ttl).toBeGreaterThan(98)
  for (const key of states('a')) await redis.expire(key, 5)
  expect(await store(NOW)).toEqual(STORED)
  for (const ttl of await ttls()) expect(ttl).toBeGreaterThan(98)
})

test('a device too many is refused in both scripts, and costs known ones nothing', async () => {
  const limits = { ...NO_LIMITS, knownDevices: 3 }
  const { state, history } = storingScripts(limits)
  const counter = `known-${run}`
  const ids = ['a', 'b', 'c', 'd']
  const histories = ids.map((id) => `history-${run}-${id}`)
  const guards = ids.map((id) => `guard-${run}-${id}`)
  await redis.hset(`state-${run}-d`, 'payload', '0') // known since before there were guards
  await redis.set(counter, 1)
  const args = ids.flatMap((id) => [`"${id}"`, String(NOW), positionOf(NOW, 0, '5')])
  const both = async () => [
    await redis.eval(state.lua, 9, ...states(...ids), counter, ...args),
    await redis.eval(history.lua, 8, ...histories, ...guards, '600', ...ids.flatMap(() => readings(2))),
  ]
  const reply = [3, 0, 3, NEW_DEVICE]
  expect(await both()).toEqual([reply, reply])
  expect(await both()).toEqual([reply, reply])
  expect(await redis.get(counter)).toBe('3')
  expect(await redis.exists(`state-${run}-c`, `guard-${run}-c`, `history-${run}-c`)).toBe(0)
  expect(await Promise.all(histories.map((key) => redis.zcard(key)))).toEqual([2, 2, 0, 2])
})

test('what a full Redis is stored with publishes, trims, and adds to no history', async () => {
  const { history } = sparingScripts(NO_LIMITS)
  const key = `history-${run}`
  await redis.zadd(key, 50, 'old', 100, 'kept')
  expect(await redis.eval(history.lua, 1, key, '600', ...readings(3))).toEqual([1, 0])
  expect(await redis.zrange(key, '0', '-1')).toEqual(['kept'])
})

test('a full Redis is trimmed by the earlier of two clocks; what is no history is passed over', async () => {
  const server = Math.floor(Date.now() / 1000)
  const [one, two] = [`history-${run}-1`, `history-${run}-2`]
  await redis.set(two, 'no sorted set')
  await redis.zadd(one, server - 700, 'old', server - 500, 'kept', server, 'new')
  const trim = (nowS: number) => redis.eval(trimScript.lua, 2, two, one, nowS, 600)
  expect(await trim(server - 3600)).toEqual([0, expect.any(Number)])
  const [removed, time] = (await trim(server + 3600)) as number[]
  expect(removed).toBe(1)
  expect(Math.abs((time ?? 0) - server)).toBeLessThan(60)
  expect(await redis.zrange(one, '0', '-1')).toEqual(['kept', 'new'])
})
