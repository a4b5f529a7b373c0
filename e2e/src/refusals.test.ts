// Redis refuses: one device's key of the wrong type costs that device alone; a server that takes no writes is waited for.
import { guardKey, historyKey, lastStateKey } from '@iot/shared/contract'
import type { Cluster } from '@iot/stack/cluster'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { runCell } from './chaos/cell.js'
import { sharedKafka } from './fixture.js'
import { createPlatform, eventually, type Platform, portsOf } from './platform.js'
import { startServers } from './servers.js'

let cluster: Cluster
let platform: Platform
beforeAll(async () => {
  // of its own, for its Redis refuses; loading takes it 1 ms a command
  cluster = await startServers({ kafka: sharedKafka(), redisOptions: ['--key-load-delay', '1000'] })
  platform = await createPlatform(portsOf(cluster))
  await platform.up()
})
afterAll(async () => {
  await platform?.down()
  await cluster?.stop()
})

test('a key of the wrong type: its messages are dead letters, all others flow on', async () => {
  const { redis, prefix, topic } = platform
  const [spoilt, sound] = [platform.id('spoilt'), platform.id('sound')]
  await redis.set(historyKey(spoilt), '1')
  const device = await platform.device()
  await Promise.all(
    Array.from({ length: 200 }, (_, seq) =>
      device.publishAsync(`${prefix}/${seq % 2 ? sound : spoilt}/data`, `{"seq":${seq}}`, { qos: 1 }),
    ),
  )
  await platform.records(200)
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  expect(await redis.zcard(historyKey(sound))).toBe(100)
  expect(await redis.hget(lastStateKey(sound), 'payload')).toBe('{"seq":199}')
  const letters = await platform.records(100, `${topic}-dlq`)
  expect(letters).toHaveLength(100)
  for (const { key, value, headers } of letters) {
    expect(String(key)).toBe(spoilt)
    expect(String(headers?.reason)).toBe('redis_rejected')
    expect(String(headers?.source)).toMatch(new RegExp(`^${topic}/\\d+@\\d+$`))
    expect(String(value)).toContain(`{"device_id":"${spoilt}","payload":{"seq":`)
  }
  // one line a minute and reason, however many batches
  const lines = platform.consumer.log().split('\n')
  expect(lines.filter((line) => line.includes('dead-lettered'))).toHaveLength(1)
})

test('ids made to look like keys are devices as any other', async () => {
  const { redis, prefix, topic, run } = platform
  const ids = [`{${run}}`, `{${run}}:offset`, `${run}}{`, `{}${run}`, guardKey(run), `${run}:guard`]
  const letters = await platform.ends(`${topic}-dlq`)
  const device = await platform.device()
  for (const round of [1, 2]) {
    await Promise.all(ids.map((id) => device.publishAsync(`${prefix}/${id}/data`, String(round), { qos: 1 })))
    for (const id of ids) {
      await eventually(async () => (await redis.hget(lastStateKey(id), 'payload')) === String(round), id)
      expect(await redis.zcard(historyKey(id))).toBe(round)
    }
  }
  expect(await platform.ends(`${topic}-dlq`)).toEqual(letters)
})

test('scripts that somebody flushes are loaded again: no standstill', async () => {
  const { redis, prefix, consumer } = platform
  const id = platform.id('flushed')
  const device = await platform.device()
  const standstills = async () => /^iot_standstills_total\{part="redis"\} (\d+)$/m.exec(await consumer.metrics())?.[1]
  const before = await standstills()
  for (const round of [1, 2, 3]) {
    await redis.script('FLUSH')
    await device.publishAsync(`${prefix}/${id}/data`, String(round), { qos: 1 })
    await eventually(async () => (await redis.hget(lastStateKey(id), 'payload')) === String(round), 'stored')
  }
  expect(await redis.zcard(historyKey(id))).toBe(3)
  expect(await standstills()).toBe(before)
})

const LOAD = { devices: 10, ratePerSecond: 200, beforeMs: 1000, afterMs: 1000 }
const clean = { missing: 0, out_of_order: 0, repeated: 0, foreign: 0, missing_in_history: 0, wrong_last_state: 0 }

test('a Redis that became a replica is waited for: READONLY is no dead letter', async () => {
  const row = await runCell(platform, cluster, 'replica', LOAD, async () => {
    await platform.redis.replicaof('127.0.0.1', 1)
    await eventually(() => platform.consumer.log().includes('READONLY'), 'the consumer met the refusal')
    await platform.redis.replicaof('NO', 'ONE')
    return []
  })
  expect(row).toMatchObject(clean)
})

test('a Redis that is still loading its data is waited for', async () => {
  // While it loads, Redis answers only once in 1,024 commands: these make it load for seconds, however few the rest are.
  const filler = platform.redis.pipeline()
  for (let i = 0; i < 4000; i++) filler.set(platform.id(`filler-${i}`), '')
  await filler.exec()
  const row = await runCell(platform, cluster, 'loading', LOAD, async () => {
    await cluster.redis.stop()
    const started = cluster.redis.start()
    const probe = new Redis(cluster.redis.port, { enableReadyCheck: false, retryStrategy: () => 100 })
    probe.on('error', () => {})
    try {
      const said = () => probe.ping().catch((error: Error) => error.message)
      await eventually(async () => (await said()).startsWith('LOADING'), 'Redis says that it is loading')
    } finally {
      probe.disconnect()
    }
    await started
    return []
  })
  expect(row).toMatchObject(clean)
})
