// Nothing is acknowledged or committed before it is stored: servers that are away, refuse, or come late.
import { expect, test } from 'vitest'
import { usePlatform } from './fixture.js'
import { eventually } from './platform.js'

const fixture = usePlatform({ servers: {}, forEachTest: true, start: () => {} }) // the tests stop the servers

const publish = async (id: string, from: number, count: number) => {
  const { platform } = fixture
  const device = await platform.device()
  const seqs = Array.from({ length: count }, (_, index) => from + index)
  const sent = seqs.map((seq) => device.publishAsync(`${platform.prefix}/${id}/data`, `{"seq":${seq}}`, { qos: 1 }))
  await Promise.all(sent)
}

const seqsOf = (texts: string[]) => texts.map((text) => JSON.parse(text).payload.seq as number)
const upTo = (count: number) => Array.from({ length: count }, (_, seq) => seq)

test('while Redis refuses writes no offset is committed, and nothing is missing after', async () => {
  const { platform } = fixture
  await platform.up()
  const id = platform.id('refused')
  const { redis } = platform
  await publish(id, 0, 10)
  await platform.records(10) // before they are in Kafka nothing lags either
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  await redis.config('SET', 'maxmemory', '1')
  await publish(id, 10, 490)
  await platform.records(500)
  await eventually(() => platform.consumer.log().includes('OOM'), 'the consumer met the refusal')
  expect(await platform.lag()).toBe(490)
  expect(await redis.zcard(`device:history:${id}`)).toBe(10)
  expect((await fetch(`${platform.consumer.url}/health/ready`)).status).toBe(503)
  await redis.config('SET', 'maxmemory', '0')
  await eventually(async () => (await platform.lag()) === 0, 'lag 0 again')
  expect(seqsOf(await redis.zrange(`device:history:${id}`, '0', '-1')).sort((a, b) => a - b)).toEqual(upTo(500))
  expect(await redis.hget(`device:last_state:${id}`, 'payload')).toBe('{"seq":499}')
})

test('while Kafka is away the bridge holds 16 MB of large readings, however many may be in flight', async () => {
  const { platform, cluster } = fixture
  await platform.up()
  const id = platform.id('large')
  const { redis } = platform
  await cluster.kafka.stop()
  const device = await platform.device()
  const pad = 'x'.repeat(199_900)
  const reading = (seq: number) => `{"seq":${100 + seq},"pad":"${pad}"}`
  const bytes = reading(0).length
  for (const seq of upTo(150)) await device.publishAsync(`${platform.prefix}/${id}/data`, reading(seq), { qos: 1 })
  const full = Math.ceil(16_000_000 / (bytes + `${platform.prefix}/${id}/data`.length + 200)) // 200 for the rest of each
  const held = async () => /^iot_in_flight_messages (\d+)$/m.exec(await platform.bridge.metrics())?.[1]
  await eventually(async () => (await held()) === String(full), 'a full window')
  await eventually(() => platform.bridge.log().includes('leaving the broker'), 'the bridge gives way')
  expect(await held()).toBe(String(full))
  await cluster.kafka.start()
  await eventually(
    async () => (await redis.hget(`device:last_state:${id}`, 'payload')) === reading(149),
    'the last one',
    120_000,
  )
  expect(await redis.zcard(`device:history:${id}`)).toBe(150)
})

test('while Kafka is away no PUBACK goes to the broker: a bridge killed then loses nothing', async () => {
  const { platform, cluster } = fixture
  await platform.up()
  const id = platform.id('unacknowledged')
  await cluster.kafka.stop()
  await publish(id, 0, 500)
  await eventually(async () => {
    const metrics = await platform.bridge.metrics()
    return /^iot_mqtt_received_messages_total 500$/m.test(metrics)
  }, 'the bridge holds them')
  await platform.bridge.kill() // what it had acknowledged would be gone now
  await Promise.all([cluster.kafka.start(), platform.bridge.start()])
  const records = await platform.records(500)
  expect(seqsOf(records.map(({ value }) => String(value)))).toEqual(upTo(500))
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  expect(await platform.redis.zcard(`device:history:${id}`)).toBe(500)
})

test('SIGTERM in the middle of load loses and repeats nothing', async () => {
  const { platform } = fixture
  await platform.up()
  const { redis, bridge, consumer } = platform
  const id = platform.id('stopped')
  const updates: string[] = []
  const listener = redis.duplicate()
  await listener.subscribe(`device-updates:${id}`)
  listener.on('message', (_channel, message) => updates.push(message))
  const load = publish(id, 0, 20_000)
  for (const [service, at] of [
    [bridge, 500],
    [consumer, 1000],
  ] as const) {
    await eventually(() => updates.length > at, `more than ${at} updates`)
    expect(await service.stop()).toBe(0)
    await service.start()
  }
  await load
  await eventually(() => updates.length >= 20_000, 'all updates')
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  listener.disconnect()
  const records = (await platform.records(20_000)).map(({ value }) => String(value))
  expect(seqsOf(records)).toEqual(upTo(20_000))
  expect(seqsOf(updates)).toEqual(upTo(20_000))
})

test('services that start before every server wait for them, and live through their restarts', async () => {
  const { platform, cluster } = fixture
  const { kafka, redis, mosquitto } = cluster
  const id = platform.id('patient')
  await Promise.all([kafka.stop(), redis.stop(), mosquitto.stop()])
  await Promise.all([platform.bridge.start(), platform.consumer.start()])
  for (const { url } of [platform.bridge, platform.consumer])
    expect((await fetch(`${url}/health/ready`)).status).toBe(503)
  await Promise.all([kafka.start(), redis.start(), mosquitto.start()])
  await platform.device()
  const ready = () => Promise.all([platform.bridge.ready(60_000), platform.consumer.ready(60_000)])
  await ready()
  let seq = 0
  await publish(id, seq++, 1)
  for (const server of [redis, kafka, mosquitto]) {
    await server.stop()
    await server.start()
    await ready()
    await publish(id, seq++, 1)
    await eventually(
      async () => (await platform.redis.hget(`device:last_state:${id}`, 'payload')) === `{"seq":${seq - 1}}`,
      `the reading after the restart of ${server.name}`,
      60_000,
    )
  }
}, 180_000)

test('SIGTERM while Kafka and Redis are away: both exit 0 in time, and what they held comes again', async () => {
  const { platform, cluster } = fixture
  await platform.up()
  const { bridge, consumer, redis } = platform
  const id = platform.id('held')
  await redis.config('SET', 'maxmemory', '1')
  await publish(id, 0, 100)
  await eventually(() => consumer.log().includes('OOM'), 'the consumer holds a batch')
  expect(await consumer.stop()).toBe(0)
  await cluster.kafka.stop()
  await publish(id, 100, 100)
  await eventually(
    async () => /^iot_mqtt_received_messages_total 200$/m.test(await bridge.metrics()),
    'the bridge holds the rest',
  )
  expect(await bridge.stop()).toBe(0)
  await redis.config('SET', 'maxmemory', '0')
  await cluster.kafka.start()
  await Promise.all([bridge.start(), consumer.start()])
  await platform.records(200)
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  expect(await redis.zcard(`device:history:${id}`)).toBe(200)
})
