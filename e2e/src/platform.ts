// Both services as processes for one test: random topic, group, prefix and ids, and the clients to look with.

import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { claimPort } from '@iot/stack/ports'
import { NODE_FLAGS, root } from '@iot/stack/prepare'
import { Redis } from 'ioredis'
import kafkajs, { type Admin, type Kafka as KafkaClient, type KafkaConfig, type KafkaMessage } from 'kafkajs'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'

const { Kafka, logLevel } = kafkajs

/** Several ports of Kafka are those of a cluster's brokers. */
export type Ports = { kafka: number | number[]; redis: number; mqtt: number }
/** How the servers are reached, where it takes more than a port. */
export type Access = {
  env: NodeJS.ProcessEnv
  kafka: Partial<KafkaConfig>
  redis: { username: string; password: string; tls: { ca: string } }
  mqtt: IClientOptions
}
export type Service = {
  url: string
  /** Starts it and waits until it lives; `env` goes on top of what it was made with. */
  start(env?: NodeJS.ProcessEnv): Promise<void>
  /** SIGTERM; answers the exit code. */
  stop(): Promise<number | null>
  kill(): Promise<void>
  /** Sends a signal that does not end it, such as SIGSTOP. */
  signal(signal: NodeJS.Signals): void
  pid(): number
  /** Memory in use, in MB; 0 when it does not run. */
  rssMb(): number
  ready(timeoutMs?: number): Promise<void>
  metrics(): Promise<string>
  log(): string
}
export type StoredRecord = KafkaMessage & { partition: number }
/** By partition. */
export type Offsets = Map<number, number>

/** Waits until `condition` answers something truthy, and answers that; what it throws counts as not yet. */
export async function eventually<T>(
  condition: () => Promise<T> | T,
  what: string | (() => string),
  timeoutMs = 30_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs
  let last: unknown
  for (;;) {
    try {
      const value = await condition()
      if (value) return value
      last = value
    } catch (error) {
      last = error
    }
    if (Date.now() > deadline) {
      const told = typeof what === 'string' ? what : what()
      throw new Error(`not seen within ${timeoutMs} ms: ${told} (last: ${String(last)})`)
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** A platform of its own on the given servers. Nothing is started yet. */
export async function createPlatform(ports: Ports, access?: Access) {
  const run = randomBytes(5).toString('hex')
  const prefix = `devices-${run}`
  const topic = `iot-data-${run}`
  const dir = mkdtempSync(join(tmpdir(), 'iot-e2e-'))
  const brokers = [ports.kafka].flat().map((port) => `127.0.0.1:${port}`)
  const common = { KAFKA_BROKERS: brokers.join(','), KAFKA_TOPIC: topic, LOG_LEVEL: 'info' }
  const services: Service[] = []
  const closers: (() => unknown)[] = []

  const service = async (
    name: 'bridge' | 'consumer',
    portVariable: string,
    env: NodeJS.ProcessEnv,
  ): Promise<Service> => {
    const port = await claimPort()
    const logFile = join(dir, `${name}-${port}.log`)
    let child: ChildProcess | undefined
    let ended: Promise<number | null> = Promise.resolve(null)
    const end = async (signal: NodeJS.Signals) => {
      child?.kill(signal)
      return ended
    }
    const made: Service = {
      url: `http://127.0.0.1:${port}`,
      async start(extra = {}) {
        const log = openSync(logFile, 'a')
        const own = spawn(process.execPath, [...NODE_FLAGS, join(root, name, 'dist', 'main.js')], {
          env: { PATH: process.env.PATH, ...common, ...env, ...access?.env, ...extra, [portVariable]: String(port) },
          stdio: ['ignore', log, log],
        })
        child = own
        ended = new Promise((resolve) => own.once('exit', resolve))
        await eventually(
          async () => (await fetch(`${made.url}/health/live`)).ok,
          () => `${name} lives: ${made.log()}`,
        )
      },
      stop: () => end('SIGTERM'),
      kill: async () => void (await end('SIGKILL')),
      signal: (signal) => void child?.kill(signal),
      pid: () => child?.pid ?? 0,
      rssMb() {
        try {
          const status = readFileSync(`/proc/${child?.pid}/status`, 'utf8')
          return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024)
        } catch {
          return 0
        }
      },
      async ready(timeoutMs) {
        const isReady = async () => (await fetch(`${made.url}/health/ready`)).ok
        await eventually(isReady, () => `${name} is ready: ${made.log()}`, timeoutMs)
      },
      metrics: async () => (await fetch(`${made.url}/metrics`)).text(),
      log: () => readFileSync(logFile, 'utf8'),
    }
    services.push(made)
    return made
  }

  const bridge = await service('bridge', 'API_PORT', {
    MQTT_URL: `mqtt://127.0.0.1:${ports.mqtt}`,
    MQTT_TOPIC_PREFIX: prefix,
    MQTT_CLIENT_ID: `bridge-${run}`,
    DATA_DIR: dir,
  })
  const newConsumer = () =>
    service('consumer', 'HEALTH_PORT', {
      REDIS_URL: `redis://127.0.0.1:${ports.redis}`,
      KAFKA_GROUP_ID: `group-${run}`,
    })
  const consumer = await newConsumer()

  const redis = new Redis(ports.redis, '127.0.0.1', { maxRetriesPerRequest: null, ...access?.redis })
  redis.on('error', () => {})
  const kafka = new Kafka({ brokers, logLevel: logLevel.NOTHING, ...access?.kafka })
  closers.push(() => redis.disconnect())

  return {
    run,
    prefix,
    topic,
    bridge,
    consumer,
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
    /** Starts both services and waits until they are ready. */
    async up() {
      await Promise.all([bridge.start(), consumer.start()])
      for (const { url, log } of [bridge, consumer])
        await eventually(
          async () => (await fetch(`${url}/health/ready`)).ok,
          () => `ready at ${url}: ${log()}`,
        )
    },
    /** Everything on a topic, from its beginning, once there are `count` records at least. */
    async records(count: number, from = topic): Promise<StoredRecord[]> {
      const found: StoredRecord[] = []
      await readTopic(
        kafka,
        from,
        new Map(),
        (record) => found.push(record),
        () => found.length >= count,
      )
      return found
    },
    /** Where each partition ends now. */
    async ends(of = topic): Promise<Offsets> {
      return withAdmin(kafka.admin(), async (admin) => {
        const ends = await admin.fetchTopicOffsets(of)
        return new Map(ends.map(({ partition, high }) => [partition, Number(high)]))
      })
    },
    /** Reads a topic from `starts` to where it ends now. */
    async recordsFrom(starts: Offsets, onRecord: (record: StoredRecord) => void, of = topic): Promise<void> {
      const ends = await this.ends(of)
      const left = new Set([...ends].filter(([partition, end]) => end > (starts.get(partition) ?? 0)).map(([at]) => at))
      const take = (record: StoredRecord) => {
        const end = ends.get(record.partition) ?? 0
        if (Number(record.offset) < end) onRecord(record)
        if (Number(record.offset) >= end - 1) left.delete(record.partition)
      }
      if (left.size > 0) await readTopic(kafka, of, starts, take, () => left.size === 0)
    },
    /** Records of the group not committed yet, over all partitions. */
    async lag(): Promise<number> {
      return withAdmin(kafka.admin(), async (admin) => {
        const ends = await admin.fetchTopicOffsets(topic)
        const [group] = await admin.fetchOffsets({ groupId: `group-${run}`, topics: [topic] })
        const committed = new Map(
          group?.partitions.map(({ partition, offset }) => [partition, Math.max(Number(offset), 0)]),
        )
        return ends.reduce((sum, { partition, high }) => sum + Number(high) - (committed.get(partition) ?? 0), 0)
      })
    },
    async down() {
      await Promise.all(services.map((one) => one.kill()))
      for (const close of closers) await close()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

export type Platform = Awaited<ReturnType<typeof createPlatform>>

async function withAdmin<T>(admin: Admin, use: (admin: Admin) => Promise<T>): Promise<T> {
  await admin.connect()
  try {
    return await use(admin)
  } finally {
    await admin.disconnect()
  }
}

async function readTopic(
  kafka: KafkaClient,
  topic: string,
  starts: Offsets,
  onRecord: (record: StoredRecord) => void,
  isDone: () => boolean,
) {
  const reader = kafka.consumer({ groupId: `look-${randomBytes(4).toString('hex')}`, maxWaitTimeInMs: 200 })
  try {
    await reader.connect()
    await reader.subscribe({ topics: [topic], fromBeginning: true })
    await reader.run({
      partitionsConsumedConcurrently: 16,
      eachBatch: async ({ batch, resolveOffset }) => {
        for (const message of batch.messages) {
          if (Number(message.offset) < (starts.get(batch.partition) ?? 0)) continue // read before the seek took hold
          onRecord({ ...message, partition: batch.partition })
          resolveOffset(message.offset)
        }
      },
    })
    for (const [partition, offset] of starts) reader.seek({ topic, partition, offset: String(offset) })
    await eventually(isDone, `the records of ${topic}`)
  } finally {
    await reader.disconnect()
  }
}
