// Topics that are missing, grow, are created again, compressed or cut by retention under a running consumer.
import { historyKey, lastStateKey } from '@iot/shared/contract'
import { type Admin, ConfigResourceTypes } from 'kafkajs'
import { afterEach, beforeEach, expect, inject, test } from 'vitest'
import { createPlatform, createTopic, eventually, type Platform } from './platform.js'

const FOUND_MS = 15_000

let platform: Platform
let admin: Admin
beforeEach(async () => {
  platform = await createPlatform({ kafka: inject('kafkaPort'), redis: inject('redisPort'), mqtt: inject('mqttPort') })
  admin = platform.kafka.admin()
  await admin.connect()
})
afterEach(async () => {
  await admin?.disconnect()
  await platform?.down()
})

const start = async () => {
  await platform.consumer.start()
  await platform.consumer.ready()
}
const partitions = async () => (await admin.fetchTopicOffsets(platform.topic)).length
const textOf = (id: string, seq: number, pad: string) =>
  `{"device_id":"${id}","payload":{"seq":${seq}${pad && `,"pad":"${pad}"`}},"timestamp":1700000000}`

/** Writes records straight to Kafka; where `partition` is not given the key decides. */
async function produce(records: { id: string; seq: number; partition?: number }[], pad = '') {
  const producer = platform.kafka.producer()
  await producer.connect()
  try {
    await producer.send({
      topic: platform.topic,
      acks: -1,
      messages: records.map(({ id, seq, partition }) => ({
        key: id,
        value: textOf(id, seq, pad),
        ...(partition === undefined ? {} : { partition }),
      })),
    })
  } finally {
    await producer.disconnect()
  }
}
const device = (index: number) => platform.id(`d${index}`)
const readings = (devices: number, from: number, to: number) =>
  Array.from({ length: (to - from) * devices }, (_, i) => ({
    id: device(i % devices),
    seq: from + Math.floor(i / devices),
  }))
const stored = async (devices: number) => {
  const counts = await Promise.all(
    Array.from({ length: devices }, (_, i) => platform.redis.zcard(historyKey(device(i)))),
  )
  return counts.reduce((sum, count) => sum + count, 0)
}
const lagOf = async () => {
  const lines = (await platform.consumer.metrics()).matchAll(/^iot_consumer_lag_messages\{partition="(\d+)"\} (\d+)$/gm)
  return new Map([...lines].map(([, partition, lag]) => [Number(partition), Number(lag)]))
}
const skipped = async () => Number(/^iot_skipped_messages_total (\d+)$/m.exec(await platform.consumer.metrics())?.[1])

test('a topic that is missing at the start is created, bounded, and read', async () => {
  await start()
  expect(await partitions()).toBe(6)
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [platform.topic, `${platform.topic}-dlq`].map((name) => ({ type: ConfigResourceTypes.TOPIC, name })),
  })
  const settings = resources.map(({ configEntries }) =>
    Object.fromEntries(configEntries.map(({ configName, configValue }) => [configName, configValue])),
  )
  expect(settings[0]).toMatchObject({ 'retention.ms': '86400000', 'retention.bytes': '-1' })
  expect(settings[1]).toMatchObject({ 'retention.ms': '604800000', 'retention.bytes': '1000000000' })
  await produce(readings(10, 0, 3))
  await eventually(async () => (await stored(10)) === 30, 'all stored')
})

test('partitions that are added are read within 15 s, and their lag shows', async () => {
  await start()
  await admin.createPartitions({ topicPartitions: [{ topic: platform.topic, count: 9 }] })
  await eventually(async () => (await partitions()) === 9, 'nine partitions')
  await produce(readings(9, 0, 2).map((one, i) => ({ ...one, partition: i % 9 })))
  await eventually(async () => (await stored(9)) === 18, 'all stored', FOUND_MS)
  await eventually(async () => (await lagOf()).size === 9, 'the lag of nine partitions')
  await eventually(async () => [...(await lagOf()).values()].every((lag) => lag === 0), 'no lag')
})

test('lag counts partitions that no consumer reads', async () => {
  await start()
  // a group whose other member is gone without a word still has half of the partitions
  const frozen = await platform.newConsumer()
  await frozen.start()
  await eventually(() => /"partitions":\[\d,\d,\d\]/.test(frozen.log()), 'it has half of the partitions')
  await eventually(async () => (await lagOf()).size === 6, 'the lag of all partitions')
  frozen.signal('SIGSTOP')
  await produce(Array.from({ length: 60 }, (_, i) => ({ id: device(i % 6), seq: i, partition: i % 6 })))
  const lag = async () => [...(await lagOf()).values()].reduce((sum, one) => sum + one, 0)
  await eventually(async () => (await lag()) === 30, 'the lag of the other half')
  frozen.signal('SIGCONT')
  await eventually(async () => (await stored(6)) === 60 && (await lag()) === 0, 'all stored')
})

test.each([6, 2])('created again with %i partitions, five times: all of the new topic is stored', async (count) => {
  await start()
  let sent = 0
  for (let round = 0; round < 5; round++) {
    await produce(readings(10, sent, sent + 3))
    sent += 3
    await eventually(async () => (await stored(10)) === 10 * sent, `round ${round}: all of the old topic`)
    await admin.deleteTopics({ topics: [platform.topic] })
    await createTopic(admin, { topic: platform.topic, numPartitions: count })
    // more than there were, so that the old offsets would skip some
    await produce(readings(10, sent, sent + 30))
    sent += 30
    let found = 0
    let high: unknown
    await eventually(
      async () => {
        high = await admin.fetchTopicOffsets(platform.topic)
        found = await stored(10)
        return found === 10 * sent
      },
      () => `round ${round}: ${found} of ${10 * sent}; ${JSON.stringify(high)}; ${platform.consumer.log()}`,
      FOUND_MS,
    )
  }
  await platform.consumer.ready(FOUND_MS)
}, 240_000)

test('created again while no consumer runs, with offsets of the old topic: nothing of the new one is skipped', async () => {
  const groupId = `group-${platform.run}`
  await start()
  await produce(readings(10, 0, 5))
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  expect(await platform.consumer.stop()).toBe(0)
  const [before] = await admin.fetchOffsets({ groupId, topics: [platform.topic] })
  await admin.deleteTopics({ topics: [platform.topic] })
  await eventually(async () => !(await admin.listTopics()).includes(platform.topic), 'the topic is gone')
  await createTopic(admin, { topic: platform.topic, numPartitions: 6 })
  await produce(readings(10, 5, 50))
  // Kafka deletes a topic's offsets with it, but a commit that was under way comes after that
  await eventually(async () => {
    await commit(groupId, before?.partitions ?? [])
    const [now] = await admin.fetchOffsets({ groupId, topics: [platform.topic] })
    return now?.partitions.some(({ offset }) => Number(offset) > 0)
  }, 'offsets of the old topic')
  await start()
  await eventually(async () => (await stored(10)) === 500, 'all stored')
}, 90_000)

/** Commits with the metadata that comes with each offset. */
async function commit(groupId: string, offsets: { partition: number; offset: string; metadata: string | null }[]) {
  const consumer = platform.kafka.consumer({ groupId })
  await consumer.connect()
  try {
    await consumer.subscribe({ topics: [platform.topic] })
    const joined = new Promise((resolve) => consumer.on('consumer.group_join', resolve))
    await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch: async () => {} })
    await joined
    await consumer.commitOffsets(
      offsets
        .filter(({ offset }) => Number(offset) >= 0)
        .map(({ partition, offset, metadata }) => ({ topic: platform.topic, partition, offset, metadata })),
    )
  } finally {
    await consumer.disconnect()
  }
}

/** What retention does: removes all but the last records of each partition. */
async function removeUpTo(offset: number) {
  await admin.fetchTopicOffsets(platform.topic) // loads the metadata that the next call needs
  await admin.deleteTopicRecords({
    topic: platform.topic,
    partitions: Array.from({ length: 6 }, (_, partition) => ({ partition, offset: String(offset) })),
  })
}
const inEach = (from: number, to: number) => readings(6, from, to).map((one, i) => ({ ...one, partition: i % 6 }))

test('what retention removes while no consumer runs is counted', async () => {
  await start()
  await produce(inEach(0, 1))
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  await platform.consumer.stop()
  await produce(inEach(1, 101))
  await removeUpTo(81)
  await start()
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  expect(await stored(6)).toBe(6 * 21)
  expect(await skipped()).toBe(6 * 80)
  expect(platform.consumer.log().split('removed messages before they were read')).toHaveLength(2)
  const metric = async (name: string) => {
    const found = new RegExp(`^${name} (\\S+)$`, 'm').exec(await platform.consumer.metrics())
    return Number(found?.[1]?.replace('+Inf', 'Infinity'))
  }
  // a day is kept, and what waited was young
  await eventually(async () => (await metric('iot_kafka_minutes_until_skipped')) <= 1440, 'what Kafka keeps is known')
  expect(await metric('iot_kafka_minutes_until_skipped')).toBeGreaterThan(1430)
  expect(await metric('iot_kafka_topic_bytes')).toBeGreaterThan(6 * 20 * 50)
  expect(await metric('iot_kafka_oldest_record_age_seconds')).toBeGreaterThan(0)
  await platform.consumer.ready()
})

test('what retention removes under a running consumer is counted', async () => {
  await start()
  await produce(inEach(0, 1))
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  platform.consumer.signal('SIGSTOP')
  const pad = 'x'.repeat(1000) // a fetch takes a part of it
  await produce(inEach(1, 600), pad)
  await removeUpTo(580)
  platform.consumer.signal('SIGCONT')
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
  const gone = 6 * 600 - (await stored(6))
  expect(gone).toBeGreaterThan(0)
  expect(await skipped()).toBe(gone)
})

test.each(['gzip', 'snappy', 'lz4', 'zstd'])('a topic that Kafka compresses with %s is read', async (codec) => {
  await start()
  await admin.alterConfigs({
    validateOnly: false,
    resources: [
      {
        type: ConfigResourceTypes.TOPIC,
        name: platform.topic,
        configEntries: [{ name: 'compression.type', value: codec }],
      },
    ],
  })
  await produce(readings(20, 0, 100))
  await eventually(async () => (await stored(20)) === 2000, 'all stored')
  expect(await platform.redis.hget(lastStateKey(device(3)), 'payload')).toBe('{"seq":99}')
  await eventually(async () => (await platform.lag()) === 0, 'lag 0')
})
