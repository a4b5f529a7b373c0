// One message must not stop ingestion: what is far too large is cut into a dead letter or dropped by the broker, never
// buffered whole, and the readings behind it arrive.
import { connect, createServer } from 'node:net'
import { lastStateKey } from '@iot/shared/contract'
import mqtt, { type MqttClient } from 'mqtt'
import { afterEach, expect, inject, test } from 'vitest'
import { ANY_SIZE, type Client, refuseMqtt5, startOwnMosquitto, startScripted } from './brokers.js'
import { createPlatform, eventually, type Platform } from './platform.js'

const MAX_RSS_MB = 300

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

/** A PUBLISH of MQTT 5 at QoS 1, put together without taking the time that a library takes for 60 MB of properties. */
function publishPacket(
  topic: string,
  payload: Buffer,
  messageId: number,
  properties: Buffer = Buffer.alloc(0),
): Buffer {
  const length = (value: number): number[] =>
    value < 128 ? [value] : [(value % 128) | 0x80, ...length(Math.floor(value / 128))]
  const id = [messageId >> 8, messageId & 0xff]
  const head = [...[topic.length >> 8, topic.length & 0xff], ...Buffer.from(topic), ...id, ...length(properties.length)]
  const rest = head.length + properties.length + payload.length
  return Buffer.concat([Buffer.from([0x32, ...length(rest), ...head]), properties, payload])
}

async function platformOn(port: number): Promise<Platform> {
  const platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: port })
  closers.push(platform.down)
  return platform
}

async function sender(port: number): Promise<MqttClient> {
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { protocolVersion: 5 })
  closers.push(() => client.endAsync(true))
  return client
}

const connects = async (platform: Platform) =>
  Number(/iot_mqtt_connects_total\{connection="ingestion"\} (\d+)/.exec(await platform.bridge.metrics())?.[1])

/** Watches the bridge's memory; returns the most that was seen. */
function watchMemory({ bridge }: Platform): () => number {
  let most = 0
  const timer = setInterval(() => {
    most = Math.max(most, bridge.rssMb())
  }, 50)
  closers.push(() => clearInterval(timer))
  return () => most
}

test('MQTT 3.1.1: a reading of 250 MB and a retained hello of 200 MB; what is behind them arrives', async () => {
  const mosquitto = await startOwnMosquitto(ANY_SIZE)
  closers.push(mosquitto.stop)
  const old = await refuseMqtt5(mosquitto.port)
  closers.push(old.close)
  const platform = await platformOn(old.port)
  const { prefix, bridge, redis, topic } = platform
  await platform.up()
  expect(bridge.log()).toContain('using 3.1.1')
  const most = watchMemory(platform)
  const device = await sender(mosquitto.port)
  const ids = ['large', 'after', 'hello'].map(platform.id) as [string, string, string]
  const hello = { qos: 0, retain: true } as const
  await device.publishAsync(`${prefix}/${ids[2]}/hello`, Buffer.alloc(200_000_000, 'h'), hello)
  await device.publishAsync(`${prefix}/${ids[0]}/data`, Buffer.alloc(250_000_000, 'x'), { qos: 1 })
  await device.publishAsync(`${prefix}/${ids[1]}/data`, '"behind it"', { qos: 1 })
  await eventually(async () => (await redis.hget(lastStateKey(ids[1]), 'payload')) === '"behind it"', 'what is behind')
  const [letter] = await platform.records(1, `${topic}-dlq`)
  expect(String(letter?.key)).toBe(ids[0])
  expect(String(letter?.headers?.reason)).toBe('too_large')
  expect(String(letter?.headers?.truncated_from)).toBe('250000000')
  expect(letter?.value?.length).toBeGreaterThan(100_000)
  expect(letter?.value?.every((byte) => byte === 'x'.charCodeAt(0))).toBe(true)
  await eventually(
    async () => ((await (await fetch(`${bridge.url}/devices`)).json()) as string[]).includes(ids[2]),
    'the hello',
  )
  expect(await connects(platform)).toBeLessThanOrEqual(2) // a busy machine may be silent for 10 s once
  await bridge.ready()
  // also after a restart: nothing is delivered again
  expect(await bridge.stop()).toBe(0)
  await bridge.start()
  await bridge.ready()
  expect(await bridge.metrics()).toContain('iot_mqtt_received_messages_total 0')
  expect(most()).toBeGreaterThan(0)
  expect(most()).toBeLessThan(MAX_RSS_MB)
}, 300_000)

test('MQTT 5: kept whole where Kafka takes it, else cut; what is above the announced size the broker drops', async () => {
  const mosquitto = await startOwnMosquitto(ANY_SIZE)
  closers.push(mosquitto.stop)
  const platform = await platformOn(mosquitto.port)
  const { prefix, bridge, redis, topic } = platform
  await platform.up()
  const device = await sender(mosquitto.port)
  const sizes = [262_144, 262_145, 700_000, 3_000_000, 50_000_000]
  for (const size of sizes)
    await device.publishAsync(`${prefix}/${platform.id(`s${size}`)}/data`, Buffer.alloc(size, '1'), { qos: 1 })
  await device.publishAsync(`${prefix}/${platform.id('last')}/data`, '1', { qos: 1 })
  await eventually(async () => (await redis.hget(lastStateKey(platform.id('last')), 'payload')) === '1', 'the last')
  expect(await redis.hstrlen(lastStateKey(platform.id('s262144')), 'payload')).toBe(262_144)
  const letters = await platform.records(3, `${topic}-dlq`)
  expect(letters.map(({ key }) => String(key))).toEqual([262_145, 700_000, 3_000_000].map((s) => platform.id(`s${s}`)))
  expect(letters.map(({ headers }) => headers?.truncated_from && String(headers.truncated_from))).toEqual([
    undefined,
    undefined,
    '3000000',
  ])
  expect(letters[1]?.value).toHaveLength(700_000)
  expect(await connects(platform)).toBe(1)
  await bridge.ready()
})

test('a broker that ignores the announced size: cut all the same; another packet of that size ends the connection', async () => {
  const announced = new Map<string, number | undefined>()
  let ingestion: Client | undefined
  const broker = await startScripted((client) => {
    announced.set(client.connect.clientId, client.connect.properties?.maximumPacketSize)
    if (!client.connect.clean) ingestion = client
  })
  closers.push(broker.close)
  const platform = await platformOn(broker.port)
  const { prefix, bridge, redis, topic, run } = platform
  await platform.up()
  const most = watchMemory(platform)
  expect(announced.get(`bridge-${run}`)).toBe(4 * 1024 * 1024)
  expect(announced.get(`bridge-${run}-control`)).toBe(4 * 1024 * 1024)
  const publish = (id: string, payload: Buffer | string, messageId: number, properties?: Buffer) =>
    publishPacket(`${prefix}/${platform.id(id)}/data`, Buffer.from(payload), messageId, properties)
  const property = Buffer.from([0x26, 0, 1, 0x6b, 0, 1, 0x76]) // one user property: k = v
  await ingestion?.write(
    publish('props', '"small"', 1, Buffer.alloc(60_000_000 - (60_000_000 % property.length), property)),
  )
  await ingestion?.write(publish('large', Buffer.alloc(60_000_000, 'y'), 2))
  await ingestion?.write(publish('after', '"behind"', 3))
  await eventually(
    async () => (await redis.hget(lastStateKey(platform.id('after')), 'payload')) === '"behind"',
    'behind',
  )
  expect(await redis.hget(lastStateKey(platform.id('props')), 'payload')).toBe('"small"')
  const [letter] = await platform.records(1, `${topic}-dlq`)
  expect(String(letter?.headers?.truncated_from)).toBe('60000000')
  expect(await connects(platform)).toBe(1)

  const before = ingestion
  await before?.write(Buffer.from([0x90, 0xff, 0xff, 0xff, 0x7f])) // a SUBACK of 256 MB
  await eventually(() => ingestion !== before, 'another connection')
  await bridge.ready()
  expect(bridge.log()).toContain('a packet of type 9 of 268435455 bytes')
  expect(most()).toBeLessThan(MAX_RSS_MB)
}, 300_000)

test('a slow link: a message that takes longer than the keepalive arrives, on the same connection', async () => {
  const BYTES_PER_SECOND = 150_000
  const server = createServer((client) => {
    const upstream = connect(inject('mqttPort'), '127.0.0.1')
    client.pipe(upstream)
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.on('error', () => other.destroy())
      one.once('close', () => other.destroy())
    }
    const timer = setInterval(() => {
      const bytes = upstream.read(Math.min(BYTES_PER_SECOND / 20, upstream.readableLength)) as Buffer | null
      if (bytes) client.write(bytes)
    }, 50)
    client.once('close', () => clearInterval(timer))
    upstream.on('readable', () => {})
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const platform = await platformOn((server.address() as { port: number }).port)
  closers.push(() => server.close())
  const { prefix, bridge, redis } = platform
  await platform.up()
  const device = await sender(inject('mqttPort'))
  await device.publishAsync(`${prefix}/${platform.id('slow')}/data`, Buffer.alloc(4_000_000, 's'), { qos: 1 })
  await device.publishAsync(`${prefix}/${platform.id('after')}/data`, '1', { qos: 1 })
  const stored = async () => (await redis.hget(lastStateKey(platform.id('after')), 'payload')) === '1'
  await eventually(stored, 'what is behind it', 60_000)
  expect(await connects(platform)).toBe(1)
  expect(await bridge.metrics()).toContain('iot_mqtt_stalls_total{connection="ingestion"} 0')
}, 300_000)

test('our own broker refuses what the bridge would not take: the sender is told, nothing is acknowledged', async () => {
  const device = await sender(inject('mqttPort'))
  expect(device.serverProperties?.maximumPacketSize).toBe(4 * 1024 * 1024)
  let isAcknowledged = false
  device.publish('large/one', Buffer.alloc(5_000_000), { qos: 1 }, (error) => {
    isAcknowledged = !error
  })
  await new Promise<void>((resolve) => device.once('close', () => resolve()))
  expect(isAcknowledged).toBe(false)
})
