// What keeps Redis from storing is seen within 15 s, with and without readings: 503 under `redis`, one line, one count.
// It heals by itself, and nothing is missing or dead-lettered.
import { historyKey, lastStateKey } from '@iot/shared/contract'
import type { Cluster } from '@iot/stack/cluster'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'
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
  cluster = await startServers({ redisOptions: ['--dbfilename', '.', ...user] })
  platform = await createPlatform({
    kafka: cluster.kafka.port,
    redis: cluster.redis.port,
    mqtt: cluster.mosquitto.port,
  })
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
