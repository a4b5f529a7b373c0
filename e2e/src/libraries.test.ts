// What the data path stands on and no library documents: a new version that behaves otherwise fails here first.
import { acknowledge, deferAcknowledgements } from '@iot/bridge/mqtt/manual-ack'
import { commonSchema } from '@iot/shared/common-config'
import { loadConfig } from '@iot/shared/config'
import { createKafka } from '@iot/shared/kafka/client'
import mqtt, { type IPublishPacket } from 'mqtt'
import { pino } from 'pino'
import { afterEach, expect, inject, test } from 'vitest'
import { eventually } from './platform.js'

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

test('MQTT.js reads on without a PUBACK; what is acknowledged then is, and the rest comes again in order', async () => {
  const url = `mqtt://127.0.0.1:${inject('mqttPort')}`
  const topic = `deferred/${Math.random()}`
  const session = { clientId: `deferred-${Math.random()}`, clean: false }
  const read = async () => {
    const reader = mqtt.connect(url, {
      ...session,
      protocolVersion: 5,
      properties: { sessionExpiryInterval: 600, receiveMaximum: 500 },
    })
    closers.push(() => reader.endAsync(true))
    const packets: IPublishPacket[] = []
    deferAcknowledgements(reader, (packet, readOn) => {
      packets.push(packet)
      readOn()
    })
    await new Promise((resolve) => reader.once('connect', resolve))
    return { reader, packets }
  }
  const payloads = (packets: IPublishPacket[]) => packets.map(({ payload }) => Number(payload))
  const numbers = (from: number, below: number) => Array.from({ length: below - from }, (_, index) => from + index)

  const first = await read()
  await first.reader.subscribeAsync(topic, { qos: 1 })
  const writer = await mqtt.connectAsync(url)
  closers.push(() => writer.endAsync(true))
  await Promise.all(numbers(0, 300).map((number) => writer.publishAsync(topic, String(number), { qos: 1 })))
  await eventually(() => first.packets.length === 300, '300 messages read without an acknowledgement')
  expect(payloads(first.packets)).toEqual(numbers(0, 300))
  acknowledge(
    first.reader,
    first.packets.slice(0, 200).map(({ messageId = 0 }) => ({ packetId: messageId, qos: 1 as const })),
  )
  await first.reader.endAsync()

  const second = await read()
  await writer.publishAsync(topic, '300', { qos: 1 })
  await eventually(() => second.packets.length === 101, 'the rest and the new one')
  expect(payloads(second.packets)).toEqual(numbers(200, 301))
  expect(second.packets.map(({ dup }) => dup)).toEqual([...numbers(200, 300).map(() => true), false])
  await mqtt.connectAsync(url, { ...session, clean: true }).then((cleaner) => cleaner.endAsync())
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
