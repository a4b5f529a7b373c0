// What the data path stands on and no library documents: a new version that behaves otherwise fails here first.
import { deferAcknowledgements } from '@iot/bridge/deferred-ack'
import { commonSchema, loadConfig } from '@iot/shared/config'
import { createKafka } from '@iot/shared/kafka'
import mqtt from 'mqtt'
import { pino } from 'pino'
import { afterEach, expect, inject, test } from 'vitest'
import { eventually } from './platform.js'

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

test('MQTT.js reads on without a PUBACK and sends it when asked, in the order asked for', async () => {
  const url = `mqtt://127.0.0.1:${inject('mqttPort')}`
  const topic = `deferred/${Math.random()}`
  const reader = mqtt.connect(url, { protocolVersion: 5, properties: { receiveMaximum: 500 } })
  closers.push(() => reader.endAsync(true))
  const received: string[] = []
  const acknowledge: (() => void)[] = []
  const acknowledged: number[] = []
  const sentIds: number[] = []
  deferAcknowledgements(reader, (delivery) => {
    received.push(String(delivery.packet.payload))
    sentIds.push(delivery.packet.messageId ?? 0)
    acknowledge.push(delivery.acknowledge)
    delivery.readOn()
  })
  reader.on('packetsend', (packet) => {
    if (packet.cmd === 'puback') acknowledged.push(packet.messageId ?? 0)
  })
  await new Promise((resolve) => reader.once('connect', resolve))
  await reader.subscribeAsync(topic, { qos: 1 })
  const writer = await mqtt.connectAsync(url)
  closers.push(() => writer.endAsync(true))
  await Promise.all(Array.from({ length: 300 }, (_, index) => writer.publishAsync(topic, String(index), { qos: 1 })))
  await eventually(() => received.length === 300, '300 messages read without an acknowledgement')
  expect(acknowledged).toEqual([])
  for (const send of acknowledge) send()
  await eventually(() => acknowledged.length === 300, '300 acknowledgements')
  expect(acknowledged).toEqual(sentIds)
  expect(received).toEqual(Array.from({ length: 300 }, (_, index) => String(index)))
})

test('an idle Kafka connection sets no timers again and again', async () => {
  const kafka = createKafka(
    'idle',
    loadConfig(commonSchema, { KAFKA_BROKERS: `127.0.0.1:${inject('kafkaPort')}` }),
    pino({ level: 'silent' }),
  )
  const admin = kafka.admin()
  await admin.connect()
  closers.push(() => admin.disconnect())
  await admin.listTopics()
  const original = globalThis.setTimeout
  let count = 0
  globalThis.setTimeout = ((...args: Parameters<typeof original>) => {
    count++
    return original(...args)
  }) as typeof original
  // without the mend there is one each millisecond
  await new Promise((resolve) => original(resolve, 300))
  globalThis.setTimeout = original
  expect(count).toBeLessThan(10)
})
