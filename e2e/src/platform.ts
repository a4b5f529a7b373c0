// The services as processes for one test: random topic, group, prefix and ids, and the clients to look with.
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Cluster } from '@iot/stack/cluster'
import { Redis } from 'ioredis'
import kafkajs, { type Admin, type ITopicConfig, type KafkaConfig } from 'kafkajs'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { eventually } from './eventually.js'
import { createService, type Service } from './service.js'
import { endsOf, lagOf, type Offsets, readToEnd, readTopic, type StoredRecord } from './topic-reader.js'

export { eventually } from './eventually.js'
export type { Offsets, Service, StoredRecord }

const { Kafka, logLevel } = kafkajs
const ANSWER_MS = 10_000 // of a broker that may be frozen: then another one is asked

/** Several ports of Kafka are those of a cluster's brokers. */
export type Ports = { kafka: number | number[]; redis: number; mqtt: number }
/** How the servers are reached, where it takes more than a port. */
export type Access = {
  env: NodeJS.ProcessEnv
  kafka: Partial<KafkaConfig>
  redis: { username: string; password: string; tls: { ca: string } }
  mqtt: IClientOptions
}

/** Where clients reach servers, all of Kafka's brokers among them. */
export const portsOf = ({ brokers, redis, mosquitto }: Cluster): Ports => ({
  kafka: brokers.map(({ port }) => port),
  redis: redis.port,
  mqtt: mosquitto.port,
})

export type Platform = Awaited<ReturnType<typeof createPlatform>>

/** A platform of its own on the given servers. Nothing is started yet. */
export async function createPlatform(ports: Ports, access?: Access) {
  const run = randomBytes(5).toString('hex')
  const prefix = `devices-${run}`
  const topic = `iot-data-${run}`
  const groupId = `group-${run}`
  const dir = mkdtempSync(join(tmpdir(), 'iot-e2e-'))
  const brokers = [ports.kafka].flat().map((port) => `127.0.0.1:${port}`)
  const services: Service[] = []
  const closers: (() => unknown)[] = []

  const service = (name: 'bridge' | 'consumer' | 'reader', env: NodeJS.ProcessEnv) => {
    const common = { KAFKA_BROKERS: brokers.join(','), KAFKA_TOPIC: topic, LOG_LEVEL: 'info' }
    const created = createService(name, dir, { ...common, ...env, ...access?.env })
    services.push(created)
    return created
  }
  const bridge = service('bridge', {
    MQTT_URL: `mqtt://127.0.0.1:${ports.mqtt}`,
    MQTT_TOPIC_PREFIX: prefix,
    MQTT_CLIENT_ID: `bridge-${run}`,
    DATA_DIR: dir,
  })
  const newConsumer = async () =>
    service('consumer', { REDIS_URL: `redis://127.0.0.1:${ports.redis}`, KAFKA_GROUP_ID: groupId })
  const consumer = await newConsumer()
  const reader = service('reader', {
    REDIS_URL: `redis://127.0.0.1:${ports.redis}`,
    KAFKA_GROUP_ID: groupId,
    READER_NICE: '0', // tests want their cores for as long as they run
  })

  /** Starts the reader, beside this bridge and consumer. */
  const startReader = (env: NodeJS.ProcessEnv = {}) =>
    reader.start({ BRIDGE_URLS: bridge.url, CONSUMER_URLS: consumer.url, ...env })

  const redis = new Redis(ports.redis, '127.0.0.1', { maxRetriesPerRequest: null, ...access?.redis })
  redis.on('error', () => {})
  const kafka = new Kafka({ brokers, logLevel: logLevel.NOTHING, requestTimeout: ANSWER_MS, ...access?.kafka })
  closers.push(() => redis.disconnect())

  return {
    run,
    prefix,
    topic,
    bridge,
    consumer,
    reader,
    startReader,
    /** A further consumer of the same group. */
    newConsumer,
    redis,
    kafka,
    id: (name: string) => `${name}-${run}`,
    /** A device's own connection. */
    async device(): Promise<MqttClient> {
      const client = await mqtt.connectAsync(access?.env.MQTT_URL ?? `mqtt://127.0.0.1:${ports.mqtt}`, {
        reconnectPeriod: 200,
        ...access?.mqtt,
      })
      client.on('error', () => {})
      closers.push(() => client.end(true))
      return client
    },
    /** Starts bridge and consumer, and the reader for whoever gives it something, and waits until they are ready. */
    async up(env: { bridge?: NodeJS.ProcessEnv; consumer?: NodeJS.ProcessEnv; reader?: NodeJS.ProcessEnv } = {}) {
      await Promise.all([bridge.start(env.bridge), consumer.start(env.consumer)])
      if (env.reader) await startReader(env.reader)
      await Promise.all([bridge.ready(), consumer.ready(), env.reader && reader.ready()])
    },
    /** What is on a topic, from its beginning: all that are `wanted`, once there are `count` of them at least. */
    async records(count: number, from = topic, wanted = (_record: StoredRecord) => true): Promise<StoredRecord[]> {
      const found: StoredRecord[] = []
      const take = (record: StoredRecord) => {
        if (wanted(record)) found.push(record)
      }
      await readTopic(kafka, from, new Map(), take, () => found.length >= count)
      return found
    },
    /** Where each partition ends now. */
    ends: (name = topic): Promise<Offsets> => endsOf(kafka, name),
    /** Reads a topic from `starts` to where it ends now. */
    recordsFrom: (starts: Offsets, onRecord: (record: StoredRecord) => void, name = topic): Promise<void> =>
      readToEnd(kafka, name, starts, onRecord),
    /** Records of the group not committed yet, over all partitions. */
    lag: (): Promise<number> => lagOf(kafka, topic, groupId),
    async down() {
      await Promise.all(services.map((one) => one.kill()))
      for (const close of closers) await close()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

/**
 * Creates a topic and waits until it is there, and empty: right after a topic of the same name was deleted, a broker tells
 * of the new one while it still takes records for the old one, which go with it. kafkajs's own wait gives up where a
 * broker lags.
 */
export async function createTopic(admin: Admin, config: ITopicConfig & { numPartitions: number }): Promise<void> {
  const topics = [config.topic]
  await eventually(async () => {
    await admin.createTopics({ topics: [config], waitForLeaders: false })
    const ends = await admin.fetchTopicOffsets(config.topic)
    if (ends.length !== config.numPartitions) await admin.deleteTopics({ topics }) // another one was first
    return ends.length === config.numPartitions && ends.every(({ high }) => high === '0')
  }, `the topic ${config.topic}`)
}
