// What keeps Redis from storing is seen within 15 s, with and without readings: 503 under `redis`, one line, one count.
// It heals by itself, and nothing is missing or dead-lettered.
import { commonSchema } from '@iot/shared/common-config'
import { historyKey, lastStateKey, updatesChannel } from '@iot/shared/contract'
import { kafkaOptions } from '@iot/shared/kafka/client'
import { createConnections } from '@iot/shared/kafka/connections'
import { bytesOf } from '@iot/shared/kafka/log-dirs'
import { findTopic } from '@iot/shared/kafka/topic-state'
import type { Cluster } from '@iot/stack/cluster'
import { size } from '@iot/stack/sizing'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { z } from 'zod'
import { sharedKafka } from './fixture.js'
import { createPlatform, eventually, type Platform, portsOf } from './platform.js'
import { startServers } from './servers.js'

const SEEN_MS = 15_000
const HEALED_MS = 5000
const WRONG = 'Redis is not accepting writes; retrying'
const RIGHT = 'Redis is accepting writes again'
const USER = { REDIS_USERNAME: 'iot', REDIS_PASSWORD: 'secret' }

let cluster: Cluster
let platform: Platform
beforeAll(async () => {
  // of its own, for its Redis refuses; a snapshot cannot be moved to the name `.`
  const user = ['--user', 'iot', 'on', '>secret', '~*', '&*', '+@all']
  cluster = await startServers({ kafka: sharedKafka(), redisOptions: ['--dbfilename', '.', ...user] })
  platform = await createPlatform(portsOf(cluster))
  await Promise.all([platform.bridge.start(), platform.consumer.start(USER)])
})
beforeEach(() => Promise.all([platform.bridge.ready(), platform.consumer.ready()]))
afterAll(async () => {
  await platform?.down()
  await cluster?.stop()
})

type Line = { level: number; msg: string; error?: string }
const lines = (): Line[] =>
  platform.consumer
    .log()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))

const metric = async (name: string) => {
  const line = (await platform.consumer.metrics()).split('\n').find((line) => line.startsWith(`${name} `))
  return Number(line?.split(' ')[1] ?? Number.NaN)
}
const standstills = () => metric('iot_standstills_total{part="redis"}')

/** What is not ready, by part; empty when the consumer is ready. */
const notReady = async (): Promise<Record<string, string>> => {
  const reply = await fetch(`${platform.consumer.url}/health/ready`)
  return reply.ok ? {} : ((await reply.json()) as { not_ready: Record<string, string> }).not_ready
}

const publish = async (id: string, from: number, count: number) => {
  const device = await platform.device()
  const seqs = Array.from({ length: count }, (_, index) => from + index)
  await Promise.all(
    seqs.map((seq) => device.publishAsync(`${platform.prefix}/${id}/data`, `{"seq":${seq}}`, { qos: 1 })),
  )
}
const inKafka = async () => [...(await platform.ends()).values()].reduce((sum, end) => sum + end, 0)
const deadLetters = async () => {
  const ends = await platform.ends(`${platform.topic}-dlq`)
  return [...ends.values()].reduce((sum, end) => sum + end, 0)
}

/** The standstill from its end: healed in time, one line and one count since `linesBefore`, every reading of `id` there. */
async function expectHealed(id: string, count: number, linesBefore: number, countBefore: number, words: RegExp) {
  await eventually(async () => Object.keys(await notReady()).length === 0, 'ready again', HEALED_MS)
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  expect(await platform.redis.zcard(historyKey(id))).toBe(count)
  expect(await platform.redis.hget(lastStateKey(id), 'payload')).toBe(`{"seq":${count - 1}}`)
  const since = lines().slice(linesBefore)
  expect(since.filter(({ level }) => level >= 40)).toEqual([expect.objectContaining({ msg: WRONG })])
  expect(since.find(({ msg }) => msg === WRONG)?.error).toMatch(words)
  expect(since.filter(({ msg }) => msg === RIGHT)).toHaveLength(1)
  expect(await standstills()).toBe(countBefore + 1)
  expect(await deadLetters()).toBe(0)
}

const redis = () => platform.redis
test.each<[string, RegExp, () => Promise<unknown>, () => Promise<unknown>]>([
  [
    'out of memory',
    /^OOM/,
    () => redis().config('SET', 'maxmemory', '1'),
    () => redis().config('SET', 'maxmemory', '0'),
  ],
  ['a replica', /^READONLY/, () => redis().replicaof('127.0.0.1', 1), () => redis().replicaof('NO', 'ONE')],
  [
    'not able to write its snapshot',
    /^MISCONF/,
    async () => {
      await redis().config('SET', 'save', '3600 1')
      await redis().bgsave()
      const failed = async () => (await redis().info('persistence')).includes('rdb_last_bgsave_status:err')
      await eventually(failed, 'a failed snapshot')
    },
    () => redis().config('SET', 'save', ''),
  ],
  [
    'short of replicas',
    /^NOREPLICAS/,
    () => redis().config('SET', 'min-replicas-to-write', '1'),
    () => redis().config('SET', 'min-replicas-to-write', '0'),
  ],
  ['frozen', /^no reply within 5 s/, () => cluster.redis.signal('SIGSTOP'), () => cluster.redis.signal('SIGCONT')],
])('%s while nothing arrives: seen, and healed with what came meanwhile', async (name, words, harm, repair) => {
  const id = platform.id(`${name.length}`)
  await publish(id, 0, 1)
  await eventually(async () => (await platform.lag()) === 0 && redis().exists(lastStateKey(id)), 'stored')
  const before = { lines: lines().length, count: await standstills(), inKafka: await inKafka() }
  await harm()
  await eventually(async () => words.test((await notReady()).redis ?? ''), 'seen without a reading', SEEN_MS)
  expect(Object.keys(await notReady())).toEqual(['redis'])
  const tries = await metric('iot_batch_retries_total')
  await publish(id, 1, 20)
  await eventually(async () => (await inKafka()) === before.inKafka + 20, 'the readings in Kafka')
  await eventually(async () => (await metric('iot_batch_retries_total')) > tries, 'a batch was tried')
  expect(await platform.lag()).toBe(20)
  await repair()
  await expectHealed(id, 21, before.lines, before.count, words)
})

test('a user without rights to the channels: waited for, and no dead letter', async () => {
  const id = platform.id('channels')
  const before = { lines: lines().length, count: await standstills(), inKafka: await inKafka() }
  await redis().acl('SETUSER', 'iot', 'resetchannels')
  await publish(id, 0, 20)
  const words = /publish to the channel|access a channel|NOPERM/
  await eventually(async () => words.test((await notReady()).redis ?? ''), 'seen', SEEN_MS)
  expect(Object.keys(await notReady())).toEqual(['redis'])
  await eventually(async () => (await inKafka()) === before.inKafka + 20, 'the readings in Kafka')
  const tries = await metric('iot_batch_retries_total')
  // past the probe's own turn: what it may do says nothing of the channels
  await eventually(async () => (await metric('iot_batch_retries_total')) > tries + 8, 'tried again and again')
  expect(await platform.lag()).toBe(20)
  expect(Object.keys(await notReady())).toEqual(['redis'])
  await redis().acl('SETUSER', 'iot', 'allchannels')
  await expectHealed(id, 20, before.lines, before.count, words)
})

test('a user without rights to the keys: seen while nothing arrives', async () => {
  const id = platform.id('keys')
  const before = { lines: lines().length, count: await standstills() }
  await redis().acl('SETUSER', 'iot', 'resetkeys')
  await eventually(async () => /^NOPERM/.test((await notReady()).redis ?? ''), 'seen', SEEN_MS)
  await redis().acl('SETUSER', 'iot', '~*')
  await eventually(async () => Object.keys(await notReady()).length === 0, 'ready again', HEALED_MS)
  await publish(id, 0, 20)
  await eventually(async () => (await redis().zcard(historyKey(id))) === 20, 'stored')
  await expectHealed(id, 20, before.lines, before.count, /^NOPERM/)
})

test('Redis gone and back: seen under `redis`, with the reason, and nothing is missing', async () => {
  const id = platform.id('gone')
  const before = { lines: lines().length, count: await standstills() }
  await cluster.redis.stop()
  await publish(id, 0, 20)
  await eventually(async () => /ECONNREFUSED/.test((await notReady()).redis ?? ''), 'seen', SEEN_MS)
  expect(Object.keys(await notReady())).toEqual(['redis'])
  await cluster.redis.start()
  await expectHealed(id, 20, before.lines, before.count, /ECONNREFUSED/)
})

const SIZED = { devices: 20, readings: 800, payloadBytes: 140 }

test('what npm run size says is what a run takes, of Redis and of Kafka, within 15 %', async () => {
  const { devices, readings, payloadBytes } = SIZED
  const used = async () => Number(/^used_memory:(\d+)/m.exec(await redis().info('memory'))?.[1])
  const options = kafkaOptions(
    'size',
    z.object(commonSchema).parse({ KAFKA_BROKERS: `127.0.0.1:${cluster.kafka.port}` }),
    { debug: () => {} } as never,
  )
  const connections = createConnections(options)
  const inTopic = async () => {
    const { partitions } = await findTopic(connections, platform.topic)
    const [leader] = partitions.map((one) => one.leader)
    const found = await bytesOf(
      connections,
      leader ?? 0,
      platform.topic,
      partitions.map(({ partition }) => partition),
    )
    return [...found.values()].reduce((sum, bytes) => sum + bytes, 0)
  }
  const ids = Array.from({ length: devices }, (_, index) => platform.id(`sized-${10 + index}`))
  const [usedBefore, diskBefore] = [await used(), await inTopic()]
  const client = await platform.device()
  const payload = (seq: number) =>
    `{"seq":${seq},"pad":"${'x'.repeat(payloadBytes)}`.slice(0, payloadBytes - 2).concat('"}')
  for (let seq = 0; seq < readings; seq++)
    await Promise.all(ids.map((id) => client.publishAsync(`${platform.prefix}/${id}/data`, payload(seq), { qos: 1 })))
  const counts = () => Promise.all(ids.map((id) => redis().zcard(historyKey(id))))
  await eventually(async () => (await counts()).every((count) => count === readings), 'all stored')
  const historySeconds = 18_000
  const fleet = {
    ...{ devices, payloadBytes, idBytes: ids[0]?.length ?? 0, intervalSeconds: historySeconds / (readings - 1) },
    ...{ historySeconds, retentionSeconds: historySeconds, replicas: 1, outageSeconds: 0 },
    ...{ compactEntries: 128, compactMemberBytes: 64, compactStateBytes: 64 }, // this Redis is as it comes
  }
  const said = size(fleet)
  const taken = (await used()) - usedBefore
  expect(Math.abs(taken / (said.redisData - size({ ...fleet, devices: 0 }).redisData) - 1)).toBeLessThan(0.15)
  const disk = (await inTopic()) - diskBefore
  expect(Math.abs(disk / (said.kafkaDisk / (1 + 1 / 8)) - 1)).toBeLessThan(0.15)
  await connections.close()
})

const RETENTION_S = 6
const PAD = 'x'.repeat(1000)

/** Readings of a thousand bytes by ten devices, at once. */
const burst = async (name: string, from: number, to: number) => {
  const client = await platform.device()
  const publish = (seq: number) =>
    client.publishAsync(`${platform.prefix}/${device(name, seq)}/data`, `{"seq":${seq},"pad":"${PAD}"}`, { qos: 1 })
  await Promise.all(Array.from({ length: to - from }, (_, index) => publish(from + index)))
}
const device = (name: string, seq: number) => platform.id(`${name}-${seq % 10}`)
const devices = (name: string) => Array.from({ length: 10 }, (_, seq) => device(name, seq))
const inHistories = async (name: string) => {
  const counts = await Promise.all(devices(name).map((id) => redis().zcard(historyKey(id))))
  return counts.reduce((sum, count) => sum + count, 0)
}
const lastStates = async (name: string) => {
  const payloads = await Promise.all(devices(name).map((id) => redis().hget(lastStateKey(id), 'payload')))
  return payloads.map((payload) => JSON.parse(payload ?? '{}').seq)
}
/** Bounds Redis to what it uses and so many bytes more. */
const leaveRoom = async (bytes: number) => {
  const used = Number(/^used_memory:(\d+)/m.exec(await redis().info('memory'))?.[1])
  await redis().config('SET', 'maxmemory', String(used + bytes))
}
/** What is published meanwhile, by the devices of a burst. */
const listen = async (name: string) => {
  const heard = new Set<number>()
  const listener = redis().duplicate()
  await listener.subscribe(...devices(name).map(updatesChannel))
  listener.on('message', (_channel, text) => heard.add(JSON.parse(text).payload.seq))
  return { heard, close: () => listener.disconnect() }
}

test('40 % short of memory: trimmed by itself, healed within two retentions, nothing lost', async () => {
  await platform.consumer.stop()
  await platform.consumer.start({ ...USER, HISTORY_RETENTION_SECONDS: String(RETENTION_S) })
  await platform.consumer.ready()
  const { heard, close } = await listen('short')
  await leaveRoom(2_000_000)
  await burst('short', 0, 3000) // of which 1,800 have room
  await eventually(async () => /^OOM/.test((await notReady()).redis ?? ''), 'full')
  expect(await metric('iot_redis_full')).toBe(1)
  const isHealed = async () => heard.size === 3000 && (await platform.lag()) === 0
  await eventually(isHealed, 'healed', 5 * RETENTION_S * 1000) // two retentions, on a machine that is not busy
  await eventually(async () => Object.keys(await notReady()).length === 0, 'ready', HEALED_MS)
  expect(await lastStates('short')).toEqual(Array.from({ length: 10 }, (_, index) => 2990 + index))
  await burst('short', 3000, 3500)
  await eventually(async () => (await inHistories('short')) > 0, 'stored')
  expect(await deadLetters()).toBe(0)
  await redis().config('SET', 'maxmemory', '0')
  close()
})

test('full with drop-history: last states and updates go on, ready; and a device too many costs nobody else', async () => {
  const known = (await redis().keys('guardhgi:device:*')).length
  await platform.consumer.stop()
  const env = { REDIS_WHEN_FULL: 'drop-history', MAX_KNOWN_DEVICES: String(known + 12) }
  await platform.consumer.start({ ...USER, ...env })
  await platform.consumer.ready()
  await eventually(async () => (await metric('iot_known_devices')) === known, 'counted')
  const { heard, close } = await listen('drop')
  await redis().del(...devices('short').map(historyKey)) // or their end would make room
  await leaveRoom(1_000_000)
  const before = await standstills()
  await burst('drop', 0, 3000)
  await eventually(async () => heard.size === 3000 && (await platform.lag()) === 0, 'nothing waits')
  expect(await standstills()).toBe(before)
  expect(await notReady()).toEqual({})
  expect(await lastStates('drop')).toEqual(Array.from({ length: 10 }, (_, index) => 2990 + index))
  const dropped = await metric('iot_history_dropped_messages_total')
  expect(dropped).toBeGreaterThan(500)
  expect((await inHistories('drop')) + dropped).toBeGreaterThanOrEqual(3000)
  await redis().config('SET', 'maxmemory', '0')
  for (let stranger = 0; stranger < 20; stranger++) await publish(platform.id(`stranger-${stranger}`), 0, 1)
  await eventually(async () => (await metric('iot_unknown_device_messages_total')) === 18, 'strangers refused')
  await burst('drop', 3000, 3100)
  await eventually(async () => (await lastStates('drop'))[9] === 3099, 'known devices go on')
  expect((await redis().keys('guardhgi:device:*')).length).toBe(known + 12)
  expect(await deadLetters()).toBe(0)
  close()
})
