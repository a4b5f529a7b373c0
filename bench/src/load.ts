// Makes the load: readings of many devices, over few connections, with the codec that MQTT.js itself uses.
import { connect as connectTcp } from 'node:net'
import type { Kafka as KafkaClient } from 'kafkajs'
import kafkajs from 'kafkajs'
import mqtt from 'mqtt'
import { generate, parser } from 'mqtt-packet'

const MAX_UNACKNOWLEDGED = 4000
const RECORDS_PER_SEND = 2000

/** A reading's JSON text. @param bytes its length, 45 at least; 75 make a record of about 130 on `iot-data` */
export function reading(seq: number, bytes: number): string {
  const start = `{"seq":${seq},"temperature":21.37,"note":"`
  return `${start}${'x'.repeat(Math.max(bytes - start.length - 2, 0))}"}`
}

export const deviceId = (index: number): string => `device-${String(index).padStart(6, '0')}`

export type MqttFeed = {
  /** Sends with QoS 1 at the end of this turn of the event loop; never waits. */
  publish(topic: string, payload: string): void
  unacknowledged(): number
  /** Resolves when at most `count` messages are not acknowledged. */
  below(count: number): Promise<void>
  close(): void
}

/** A connection that publishes: MQTT 3.1.1, clean session. */
export async function createFeed(port: number, clientId: string): Promise<MqttFeed> {
  const socket = connectTcp({ host: '127.0.0.1', port, noDelay: true })
  let open = 0
  let nextId = 1
  let corked = false
  let waiting: { count: number; resolve: () => void } | undefined
  const incoming = parser({ protocolVersion: 4 })
  const connected = new Promise<void>((resolve, reject) => {
    socket.once('error', reject)
    incoming.on('packet', ({ cmd }) => {
      if (cmd === 'connack') resolve()
      if (cmd !== 'puback') return
      open--
      if (waiting && open <= waiting.count) {
        waiting.resolve()
        waiting = undefined
      }
    })
  })
  socket.on('data', (data) => void incoming.parse(data))
  socket.write(
    generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, clientId, keepalive: 0 }),
  )
  await connected
  return {
    publish(topic, payload) {
      if (!corked) {
        corked = true
        socket.cork()
        process.nextTick(() => {
          corked = false
          socket.uncork()
        })
      }
      const packet = { cmd: 'publish', topic, payload, qos: 1, dup: false, retain: false, messageId: nextId } as const
      socket.write(generate(packet))
      nextId = nextId === 65_535 ? 1 : nextId + 1
      open++
    },
    unacknowledged: () => open,
    below(count) {
      if (open <= count) return Promise.resolve()
      return new Promise((resolve) => {
        waiting = { count, resolve }
      })
    },
    close: () => socket.destroy(),
  }
}

/** Makes a persistent session that waits for `{prefix}/+/data`. */
export async function createSession(port: number, clientId: string, prefix: string): Promise<void> {
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, {
    clientId,
    clean: false,
    protocolVersion: 5,
    properties: { sessionExpiryInterval: 86_400 },
  })
  await client.subscribeAsync(`${prefix}/+/data`, { qos: 1 })
  await client.endAsync()
}

/** Ends a session, with all that waits in it. */
export async function dropSession(port: number, clientId: string): Promise<void> {
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { clientId, clean: true })
  await client.endAsync()
}

export type Backlog = { messages: number; devices: number; payloadBytes: number }

/** Publishes the backlog, the devices taking turns. */
export async function fillMqtt(port: number, prefix: string, { messages, devices, payloadBytes }: Backlog) {
  const feed = await createFeed(port, `fill-${prefix}`)
  for (let seq = 0; seq < messages; seq++) {
    feed.publish(`${prefix}/${deviceId(seq % devices)}/data`, reading(seq, payloadBytes))
    if (seq % 500 === 0) await feed.below(MAX_UNACKNOWLEDGED)
  }
  await feed.below(0)
  feed.close()
}

/** What the bridge would write. @param timestamp Unix time in seconds */
export function record(seq: number, { devices, payloadBytes }: Backlog, timestamp: number) {
  const key = deviceId(seq % devices)
  const value = `{"device_id":"${key}","payload":${reading(seq, payloadBytes)},"timestamp":${timestamp}}`
  return { key, value }
}

/** Puts the backlog into a topic as the bridge would. */
export async function fillKafka(kafka: KafkaClient, topic: string, backlog: Backlog) {
  const producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner })
  await producer.connect()
  const timestamp = Math.floor(Date.now() / 1000)
  const perSend = Math.max(20, Math.min(RECORDS_PER_SEND, Math.floor(2_000_000 / backlog.payloadBytes)))
  for (let from = 0; from < backlog.messages; from += perSend) {
    const count = Math.min(perSend, backlog.messages - from)
    const messages = Array.from({ length: count }, (_, index) => record(from + index, backlog, timestamp))
    await producer.send({ topic, acks: -1, messages })
  }
  await producer.disconnect()
}
