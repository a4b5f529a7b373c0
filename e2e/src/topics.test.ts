// Topics that vanish, shrink and grow under a running bridge: found within 15 s, nothing acknowledged is lost.
import { deadLetterTopic } from '@iot/shared/contract'
import type { Admin } from 'kafkajs'
import { afterEach, beforeEach, expect, inject, test } from 'vitest'
import { createPlatform, eventually, type Platform } from './platform.js'

const FOUND_MS = 15_000

let platform: Platform
let admin: Admin
beforeEach(async () => {
  platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: inject('mqttPort') })
  await platform.bridge.start()
  await platform.bridge.ready()
  admin = platform.kafka.admin()
  await admin.connect()
})
afterEach(async () => {
  await admin?.disconnect()
  await platform?.down()
})

const DEVICES = 30
/** Readings `from` to below `to` of each device, all acknowledged by the broker. */
async function publish(from: number, to: number) {
  const device = await platform.device()
  for (let seq = from; seq < to; seq++) {
    const each = Array.from({ length: DEVICES }, (_, index) => platform.id(`d${index}`))
    await Promise.all(
      each.map((id) => device.publishAsync(`${platform.prefix}/${id}/data`, `{"seq":${seq}}`, { qos: 1 })),
    )
  }
}

const metric = async (pattern: RegExp) => Number(pattern.exec(await platform.bridge.metrics())?.[1])
const inFlight = () => metric(/^iot_in_flight_messages (\d+)$/m)
const received = () => metric(/^iot_mqtt_received_messages_total (\d+)$/m)
const partitions = async (topic = platform.topic) => (await admin.fetchTopicOffsets(topic)).length

/** The sequence numbers of each device in the order of Kafka, all partitions. */
async function stored(count: number) {
  const found = new Map<string, { seq: number; partition: number }[]>()
  for (const { key, value, partition } of await platform.records(count)) {
    const device = String(key)
    const list = found.get(device) ?? []
    found.set(device, list)
    list.push({ seq: JSON.parse(String(value)).payload.seq, partition })
  }
  return found
}
const upTo = (count: number) => Array.from({ length: count }, (_, seq) => seq)

/** Deletes the topic and creates it with another number of partitions, before the bridge does that. */
async function recreate(numPartitions: number) {
  const { topic } = platform
  await eventually(async () => {
    await admin.deleteTopics({ topics: [topic] })
    await admin.createTopics({ topics: [{ topic, numPartitions }], waitForLeaders: true })
    return (await partitions()) === numPartitions
  }, `${numPartitions} partitions`)
}

test('created again with fewer partitions: what is acknowledged is on the new topic', async () => {
  await recreate(1)
  await publish(0, 20)
  await eventually(async () => (await received()) === 20 * DEVICES && (await inFlight()) === 0, 'all stored')
  const found = await stored(20 * DEVICES)
  expect(found.size).toBe(DEVICES)
  for (const list of found.values()) expect(list).toEqual(upTo(20).map((seq) => ({ seq, partition: 0 })))
})

test('partitions added under load are used within 15 s, and each device keeps its order', async () => {
  await publish(0, 5)
  const before = new Map([...(await stored(5 * DEVICES))].map(([id, [first]]) => [id, first?.partition]))
  await admin.createPartitions({ topicPartitions: [{ topic: platform.topic, count: 16 }] })
  let next = 5
  await eventually(
    async () => {
      await publish(next, next + 1)
      next++
      const ends = await platform.ends()
      return [...ends].some(([partition, end]) => partition >= 6 && end > 0)
    },
    'records in the new partitions',
    FOUND_MS,
  )
  await eventually(async () => (await inFlight()) === 0, 'all stored')
  const found = await stored(next * DEVICES)
  for (const [id, list] of found) {
    expect(list.map(({ seq }) => seq).sort((a, b) => a - b)).toEqual(upTo(next))
    // first all that went to its partition of before, then all that went to the one of now
    const moved = list.filter(({ partition }) => partition !== before.get(id)).map(({ seq }) => seq)
    const stayed = list.filter(({ partition }) => partition === before.get(id)).map(({ seq }) => seq)
    expect([...stayed].sort((a, b) => a - b)).toEqual(stayed)
    expect([...moved].sort((a, b) => a - b)).toEqual(moved)
    if (moved.length > 0) expect(Math.min(...moved)).toBe(stayed.length)
  }
})

test('the topic is deleted: it is created again, and nothing acknowledged is missing', async () => {
  await admin.deleteTopics({ topics: [platform.topic] })
  await publish(0, 10)
  await eventually(async () => (await inFlight()) === 0, 'all stored')
  const found = await stored(10 * DEVICES)
  expect(found.size).toBe(DEVICES)
  for (const list of found.values()) expect(list.map(({ seq }) => seq)).toEqual(upTo(10))
  expect(await partitions()).toBe(6)
  await platform.bridge.ready(FOUND_MS)
})

test("the dead letters' topic is deleted: a bad message holds up nothing, and its letter is stored", async () => {
  const letters = deadLetterTopic(platform.topic)
  await admin.deleteTopics({ topics: [letters] })
  const device = await platform.device()
  await device.publishAsync(`${platform.prefix}/${platform.id('bad')}/data`, Buffer.from([0xff]), { qos: 1 })
  await publish(0, 1)
  await eventually(async () => (await inFlight()) === 0, 'all stored')
  expect((await stored(DEVICES)).size).toBe(DEVICES)
  expect(await platform.records(1, letters)).toHaveLength(1)
})

test("a dead letters' topic that is compacted takes letters of unknown devices too", async () => {
  const letters = deadLetterTopic(platform.topic)
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: 2, name: letters, configEntries: [{ name: 'cleanup.policy', value: 'compact' }] }],
  })
  const device = await platform.device()
  await device.publishAsync(`${platform.prefix}//data`, 'of nobody', { qos: 1 })
  await publish(0, 1)
  await eventually(async () => (await inFlight()) === 0, 'all stored')
  expect(await platform.records(1, letters)).toHaveLength(1)
})
