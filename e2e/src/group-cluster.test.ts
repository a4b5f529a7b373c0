// A consumer on a cluster of three brokers: the broker that coordinates its group dies, and one that alone leads some
// partitions.
import { commonSchema } from '@iot/shared/common-config'
import { loadConfig } from '@iot/shared/config'
import { lastStateKey } from '@iot/shared/contract'
import { kafkaOptions } from '@iot/shared/kafka/client'
import { createConnections, type KafkaConnections } from '@iot/shared/kafka/connections'
import { createProducer } from '@iot/shared/kafka/producer'
import type { Admin } from 'kafkajs'
import { pino } from 'pino'
import { afterAll, expect, test } from 'vitest'
import { runCell } from './chaos/cell.js'
import { inSync } from './chaos/replicas.js'
import { usePlatform } from './fixture.js'
import { createTopic, eventually, type Platform } from './platform.js'

const LOAD = { devices: 30, ratePerSecond: 600, beforeMs: 2000, afterMs: 1000 }
const clean = { missing: 0, out_of_order: 0, foreign: 0, missing_in_history: 0, wrong_last_state: 0 }

let platform: Platform
let admin: Admin
let connections: KafkaConnections
const fixture = usePlatform({
  servers: { kafkaBrokers: 3 },
  async start(started) {
    platform = started
    await platform.up()
    await inSync(platform)
    admin = platform.kafka.admin()
    await admin.connect()
    const addresses = fixture.cluster.brokers.map(({ port }) => `127.0.0.1:${port}`).join()
    const config = loadConfig(commonSchema, { KAFKA_BROKERS: addresses })
    connections = createConnections(kafkaOptions('test', config, pino({ level: 'silent' })))
  },
})
afterAll(async () => {
  await connections?.close()
  await admin?.disconnect()
})

const groupId = () => `group-${platform.run}`
const brokerOf = (nodeId: number) => {
  const broker = fixture.cluster.brokers[nodeId - 1]
  if (!broker) throw new Error(`there is no broker ${nodeId}`)
  return broker
}

/** The node that coordinates the group. */
async function coordinator(): Promise<number> {
  // kafkajs tells it to nobody; it is the leader of the group's partition of __consumer_offsets
  const { topics } = await admin.fetchTopicMetadata({ topics: ['__consumer_offsets'] })
  const partitions = topics[0]?.partitions ?? []
  let hash = 0
  for (const char of groupId()) hash = (Math.imul(31, hash) + char.charCodeAt(0)) | 0
  const partition = (hash & 0x7fffffff) % partitions.length
  return partitions.find(({ partitionId }) => partitionId === partition)?.leader ?? -1
}

/** The longest time without an update of a device, and how many came again, while they are watched. */
async function watchGaps(name: string) {
  const subscriber = platform.redis.duplicate()
  await subscriber.psubscribe(`device-updates:*${name}*`)
  const last = new Map<string, { seq: number; ms: number }>()
  const longest = { one: 0 }
  let again = 0
  subscriber.on('pmessage', (_pattern: string, channel: string, text: string) => {
    const ms = performance.now()
    const seq = Number(JSON.parse(text).payload.seq)
    const before = last.get(channel) ?? { seq: -1, ms }
    longest.one = Math.max(longest.one, ms - before.ms)
    if (seq <= before.seq) again++
    last.set(channel, { seq: Math.max(seq, before.seq), ms })
  })
  return { longest, again: () => again, end: () => subscriber.disconnect() }
}

/** The longest time between two records of one device, as Kafka stamped them, in milliseconds. */
async function longestIngestionGap(name: string): Promise<number> {
  const last = new Map<string, number>()
  let longest = 0
  await platform.recordsFrom(new Map(), ({ key, timestamp }) => {
    const id = String(key)
    if (!id.includes(name)) return
    longest = Math.max(longest, Number(timestamp) - (last.get(id) ?? Number(timestamp)))
    last.set(id, Number(timestamp))
  })
  return longest
}

test("the group's coordinator dies: live updates pause no longer than Kafka takes to elect other leaders", async () => {
  const joins = async () => Number(/^iot_group_joins_total (\d+)$/m.exec(await platform.consumer.metrics())?.[1])
  const before = await joins()
  const gaps = await watchGaps('coordinator')
  const row = await runCell(platform, fixture.cluster, 'coordinator', LOAD, async () => {
    const node = await coordinator()
    const startedMs = Date.now()
    await brokerOf(node).signal('SIGKILL')
    await eventually(async () => (await coordinator()) !== node, 'another coordinator')
    await eventually(() => Date.now() - startedMs > 20_000, 'what a pause would take')
    await brokerOf(node).start()
    await inSync(platform)
    return []
  })
  gaps.end()
  expect(row).toMatchObject(clean)
  // what Kafka took to elect leaders, during which nothing could be ingested; the consumer adds next to nothing
  const election = await longestIngestionGap('coordinator')
  expect(gaps.longest.one).toBeLessThan(election + 3000)
  expect(gaps.again()).toBe(0)
  expect(await joins()).toBe(before) // the membership outlives its coordinator
}, 180_000)

test('a broker that alone leads some partitions dies: seen within 15 s, the others are read on, and it heals', async () => {
  const topic = `${platform.topic}-single`
  const prefix = `${platform.prefix}-single`
  const env = { KAFKA_TOPIC: topic, KAFKA_GROUP_ID: `${groupId()}-single`, MQTT_TOPIC_PREFIX: prefix }
  await createTopic(admin, { topic, numPartitions: 6, replicationFactor: 1 })
  const consumer = await platform.newConsumer()
  await consumer.start(env)
  await consumer.ready()
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
  const leaders = new Map((topics[0]?.partitions ?? []).map(({ partitionId, leader }) => [partitionId, leader]))
  const victim = leaders.get(0) as number
  const producer = createProducer(connections) // kafkajs's own sends nothing to a topic that lacks one leader
  await connections.metadata([topic])
  const other = [...leaders].find(([, leader]) => leader !== victim)?.[0] as number
  await brokerOf(victim).signal('SIGKILL')
  const reason = async () => (await fetch(`${consumer.url}/health/ready`)).text()
  await eventually(async () => /"kafka":"Kafka: /.test(await reason()), 'not ready', 15_000)
  await eventually(async () => new RegExp(`${topic}/\\d+ has no leader`).test(await reason()), 'the reason', 30_000)
  const id = platform.id('elsewhere')
  const value = `{"device_id":"${id}","payload":1,"timestamp":1700000000}`
  const batch = { topic, partition: other, records: [{ key: id, value }] }
  const send = async () => {
    const [refusal] = await producer.send(leaders.get(other) as number, [batch])
    if (refusal) throw refusal
    return true
  }
  await eventually(send, 'a record on another partition') // the cluster gives producer ids again after a moment
  await eventually(() => platform.redis.exists(lastStateKey(id)), 'a reading of another partition is stored')
  // a consumer that has never seen the broker learns of it, too
  expect(await consumer.stop()).toBe(0)
  await consumer.start(env)
  await eventually(async () => new RegExp(`${topic}/\\d+ has no leader`).test(await reason()), 'the reason again')
  await brokerOf(victim).start()
  await consumer.ready(60_000)
  const late = platform.id('late')
  const lateValue = `{"device_id":"${late}","payload":1,"timestamp":1700000000}`
  const onVictim = { topic, partition: 0, records: [{ key: late, value: lateValue }] }
  await eventually(async () => (await producer.send(victim, [onVictim]))[0] === null, 'a record on its partition')
  await eventually(() => platform.redis.exists(lastStateKey(late)), 'a reading of its partition is stored')
  expect(await consumer.stop()).toBe(0)
}, 180_000)
