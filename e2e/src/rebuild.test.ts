// npm run rebuild: what Redis has lost comes again from Kafka, beside a running consumer, and nothing is published.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { historyKey, lastStateKey } from '@iot/shared/contract'
import { root } from '@iot/stack/prepare'
import { expect, inject, test } from 'vitest'
import { usePlatform } from './fixture.js'
import { eventually } from './platform.js'

const DEVICES = 40
const READINGS = 25

const fixture = usePlatform()

const rebuild = (env: NodeJS.ProcessEnv = {}) => {
  const { platform } = fixture
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'consumer', 'dist', 'rebuild.js')], {
    env: {
      PATH: process.env.PATH,
      KAFKA_BROKERS: `127.0.0.1:${inject('kafkaPort')}`,
      KAFKA_TOPIC: platform.topic,
      REDIS_URL: `redis://127.0.0.1:${inject('redisPort')}`,
      ...env,
    },
    encoding: 'utf8',
    timeout: 60_000,
  })
  return { status, stdout, stderr }
}
const ids = () => Array.from({ length: DEVICES }, (_, index) => fixture.platform.id(`r${index}`))
const inRedis = () => {
  const { redis } = fixture.platform
  const one = async (id: string) => [
    await redis.hgetall(lastStateKey(id)),
    await redis.zrange(historyKey(id), '0', '-1'),
  ]
  return Promise.all(ids().map(one))
}
const forget = async (id: string) => {
  const { redis } = fixture.platform
  await redis.del(lastStateKey(id), historyKey(id), `guardhgi:${lastStateKey(id)}`)
}

/** As the bridge would write it, but of any time. */
async function produce(id: string, payload: string, timestamp: number) {
  const producer = fixture.platform.kafka.producer()
  await producer.connect()
  const value = `{"device_id":"${id}","payload":${payload},"timestamp":${timestamp}}`
  await producer.send({ topic: fixture.platform.topic, acks: -1, messages: [{ key: id, value }] })
  await producer.disconnect()
}

test('what Redis has lost is there again, what is newer stays, and nobody hears of it', async () => {
  const { platform } = fixture
  const { redis, prefix } = platform
  const device = await platform.device()
  for (let seq = 0; seq < READINGS; seq++)
    await Promise.all(ids().map((id) => device.publishAsync(`${prefix}/${id}/data`, `{"seq":${seq}}`, { qos: 1 })))
  const isStored = async () => (await platform.lag()) === 0 && (await redis.zcard(historyKey(ids()[0] ?? ''))) > 0
  await eventually(isStored, 'all stored')
  const before = await inRedis()

  const [newer = '', ...others] = ids()
  for (const id of ids()) await forget(id)
  await device.publishAsync(`${prefix}/${newer}/data`, '{"seq":"newest"}', { qos: 1 })
  const stateOf = (id: string) => redis.hget(lastStateKey(id), 'payload')
  await eventually(async () => (await stateOf(newer)) === '{"seq":"newest"}', 'the newer reading')
  const listener = redis.duplicate()
  let heard = 0
  await listener.psubscribe(`device-updates:*${platform.run}`)
  listener.on('pmessage', () => heard++)

  expect(rebuild()).toMatchObject({
    status: 0,
    stdout: expect.stringContaining(`${DEVICES * READINGS + 1} records read; in Redis all of them`),
  })
  const [first, ...rest] = await inRedis()
  expect(rest).toEqual(before.slice(1))
  expect(others).toHaveLength(rest.length)
  expect(first?.[0]).toMatchObject({ payload: '{"seq":"newest"}' })
  expect(first?.[1]).toHaveLength(READINGS + 1)
  await device.publishAsync(`${prefix}/${newer}/data`, '{"seq":"last"}', { qos: 1 })
  await eventually(() => heard > 0, 'what comes after')
  expect(heard).toBe(1)
  listener.disconnect()
})

test('of what is older than the retention the last state comes back, and no history', async () => {
  const { platform } = fixture
  const id = platform.id('old')
  await produce(id, '1', 1_700_000_000)
  await eventually(async () => (await platform.lag()) === 0, 'stored')
  await forget(id)
  expect(rebuild()).toMatchObject({ status: 0 })
  expect(await platform.redis.hgetall(lastStateKey(id))).toEqual({ payload: '1', timestamp: '1700000000' })
  expect(await platform.redis.exists(historyKey(id))).toBe(0)
})

test('what cannot be rebuilt is said', async () => {
  const { platform } = fixture
  const id = platform.id('refused')
  await produce(id, '1', 1_700_000_000)
  await eventually(async () => (await platform.lag()) === 0, 'stored')
  await platform.redis.del(lastStateKey(id))
  await platform.redis.set(lastStateKey(id), 'of the wrong type')
  expect(rebuild()).toMatchObject({ status: 1, stdout: expect.stringContaining('1 redis_rejected') })
  await platform.redis.del(lastStateKey(id))
  expect(rebuild({ KAFKA_TOPIC: `${platform.topic}-none` })).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/^rebuild: .*topic/m),
  })
  expect(rebuild({ BATCH_SIZE: 'many' })).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('BATCH_SIZE'),
  })
})
