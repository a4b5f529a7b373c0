// Another client with the bridge's id, and a broker that does not answer: not ready with the reason within 15 s, one
// line, a counter; and it heals by itself.
import { lastStateKey } from '@iot/shared/contract'
import mqtt from 'mqtt'
import { afterEach, expect, inject, test } from 'vitest'
import { startOwnMosquitto, startScripted } from './brokers.js'
import { createPlatform, eventually, type Platform } from './platform.js'

const SEEN_MS = 15_000

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

async function platformOn(port: number): Promise<Platform> {
  const platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: port })
  closers.push(platform.down)
  await platform.up()
  return platform
}

const notReady = async ({ bridge }: Platform): Promise<Record<string, string>> => {
  const reply = (await (await fetch(`${bridge.url}/health/ready`)).json()) as { not_ready?: Record<string, string> }
  return reply.not_ready ?? {}
}
const counted = async ({ bridge }: Platform, name: string, labels: string) =>
  Number(new RegExp(`^${name}\\{${labels}\\} (\\d+)$`, 'm').exec(await bridge.metrics())?.[1])
const warnings = ({ bridge }: Platform, words: string) =>
  bridge
    .log()
    .split('\n')
    .filter((line) => line.includes('"level":40') && line.includes(words))

test('a client that takes the session over again and again: named, slowed down, healed when it is gone', async () => {
  const platform = await platformOn(inject('mqttPort'))
  const { run, prefix, redis, bridge } = platform
  const device = await platform.device()
  let seq = 0
  const sending = setInterval(
    () => device.publish(`${prefix}/${platform.id('on')}/data`, String(seq++), { qos: 1 }),
    20,
  )
  closers.push(() => clearInterval(sending))
  const thief = mqtt.connect(`mqtt://127.0.0.1:${inject('mqttPort')}`, {
    clientId: `bridge-${run}`,
    clean: false,
    protocolVersion: 5,
    properties: { sessionExpiryInterval: 600 },
    reconnectPeriod: 1,
  })
  thief.on('error', () => {})
  closers.push(() => thief.endAsync(true))
  const reason = async () => (await notReady(platform)).ingestion?.includes('MQTT_CLIENT_ID')
  await eventually(reason, 'the reason', SEEN_MS)
  expect(await counted(platform, 'iot_mqtt_takeovers_total', 'connection="ingestion"')).toBeGreaterThan(0)
  expect(await counted(platform, 'iot_standstills_total', 'part="ingestion"')).toBeGreaterThan(0)
  const before = await counted(platform, 'iot_mqtt_connects_total', 'connection="ingestion"')
  const until = Date.now() + 6000
  await eventually(async () => Date.now() > until && (await reason()), 'still the reason', 20_000)
  expect(await counted(platform, 'iot_mqtt_connects_total', 'connection="ingestion"')).toBeLessThan(before + 3)
  // where the first look saw no more than a lost connection, the better reason comes 10 s after it
  await eventually(() => warnings(platform, 'MQTT_CLIENT_ID').length > 0, 'one line', 20_000)
  expect(warnings(platform, 'MQTT_CLIENT_ID')).toHaveLength(1)

  await thief.endAsync(true)
  await bridge.ready(60_000)
  const stored = async () => (await redis.hget(lastStateKey(platform.id('on')), 'payload')) === String(seq - 1)
  clearInterval(sending)
  await eventually(stored, 'the last reading')
}, 120_000)

test('a broker that says so: known at the first time', async () => {
  let takeovers = 0
  const broker = await startScripted((client) => {
    if (client.connect.clean || takeovers === 2) return
    takeovers++
    client.send({ cmd: 'disconnect', reasonCode: 0x8e })
    client.end()
  })
  closers.push(broker.close)
  const platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: broker.port })
  closers.push(platform.down)
  await platform.bridge.start()
  await eventually(
    async () => (await notReady(platform)).ingestion?.includes('another client uses this MQTT_CLIENT_ID'),
    'the reason',
    SEEN_MS,
  )
  await platform.bridge.ready(90_000)
  expect(await counted(platform, 'iot_mqtt_takeovers_total', 'connection="ingestion"')).toBe(2)
  expect(warnings(platform, 'MQTT_CLIENT_ID')).toHaveLength(1)
}, 120_000)

test('a frozen broker: both connections see it, and come back when it thaws', async () => {
  const mosquitto = await startOwnMosquitto()
  closers.push(mosquitto.stop)
  const platform = await platformOn(mosquitto.port)
  const { prefix, redis, bridge } = platform
  const before = await counted(platform, 'iot_standstills_total', 'part="ingestion"')
  await mosquitto.signal('SIGSTOP')
  const parts = async () => Object.keys(await notReady(platform)).sort()
  await eventually(async () => (await parts()).join() === 'control,ingestion', 'both not ready', SEEN_MS)
  expect((await notReady(platform)).ingestion).toContain('silent')
  const until = Date.now() + 12_000 // longer than one try to connect
  await eventually(async () => Date.now() > until && (await parts()).length === 2, 'still not ready')
  for (const connection of ['ingestion', 'control']) {
    expect(await counted(platform, 'iot_mqtt_stalls_total', `connection="${connection}"`)).toBe(1)
    expect(warnings(platform, 'silent').filter((line) => line.includes(`"connection":"${connection}"`))).toHaveLength(1)
  }
  expect(await counted(platform, 'iot_standstills_total', 'part="ingestion"')).toBe(before + 1)
  await mosquitto.signal('SIGCONT')
  await bridge.ready()
  const device = await platform.device()
  await device.publishAsync(`${prefix}/${platform.id('thawed')}/data`, '1', { qos: 1 })
  await eventually(async () => (await redis.hget(lastStateKey(platform.id('thawed')), 'payload')) === '1', 'a reading')
}, 120_000)

test('a broker that grants QoS 0 only: readings are stored, but it is not ready and says why', async () => {
  const mosquitto = await startOwnMosquitto(['max_qos 0'])
  closers.push(mosquitto.stop)
  const platform = await createPlatform({
    kafka: inject('kafkaPort'),
    redis: inject('redisPort'),
    mqtt: mosquitto.port,
  })
  closers.push(platform.down)
  const { bridge, consumer, redis, prefix } = platform
  await Promise.all([bridge.start(), consumer.start()])
  await consumer.ready()
  await eventually(async () => (await notReady(platform)).ingestion?.includes('QoS 0'), 'the reason', SEEN_MS)
  expect(Object.keys(await notReady(platform))).toEqual(['ingestion'])
  expect(warnings(platform, 'QoS 0')).toHaveLength(1)
  expect(await counted(platform, 'iot_standstills_total', 'part="ingestion"')).toBe(1)
  const device = await platform.device()
  await device.publishAsync(`${prefix}/${platform.id('weak')}/data`, '1', { qos: 0 })
  await eventually(async () => (await redis.hget(lastStateKey(platform.id('weak')), 'payload')) === '1', 'the reading')
})
