// The topics themselves: created where they are missing, looked at for what weakens the promise, and for how much they keep.
import type { Logger } from 'pino'
import type { CommonConfig } from '../common-config.js'
import { deadLetterTopic } from '../contract.js'
import { describe } from '../errors.js'
import type { KafkaClient } from './client.js'
import type { Metadata } from './connections.js'

const SAFE_REPLICAS = 3
const TOPIC_RESOURCE = 2
const CREATE_PAUSE_MS = 1000
const DEAD_LETTERS = { seconds: 7 * 86_400, bytes: 1_000_000_000 }
const MIN_SEGMENT_BYTES = 16_000_000
const MAX_SEGMENT_BYTES = 1_000_000_000
// Kafka deletes whole segments, and never the one that it writes to: a topic keeps so much more than it is told to
const SEGMENTS = 8

export type TopicOptions = {
  topic: string
  /** Partitions of a topic that is created; its dead letters' topic has one. */
  partitions: number
  /** Replicas of a topic that is created; undefined for the cluster's default. */
  replicationFactor?: number | undefined
  /** What a topic that is created keeps; `bytes` of all partitions together, before replication, 0 for no bound. */
  retention: { seconds: number; bytes: number }
  /** What the histories in Redis go back: a topic that keeps less cannot fill them again. */
  historySeconds: number
}

/** What the configuration says of topics. Records are never kept for less time than the histories that are made of them. */
export const topicOptions = (config: CommonConfig): TopicOptions => ({
  topic: config.KAFKA_TOPIC,
  partitions: config.KAFKA_TOPIC_PARTITIONS,
  replicationFactor: config.KAFKA_REPLICATION_FACTOR,
  retention: {
    seconds: Math.max(config.KAFKA_RETENTION_HOURS * 3600, config.HISTORY_RETENTION_SECONDS),
    bytes: config.KAFKA_RETENTION_BYTES,
  },
  historySeconds: config.HISTORY_RETENTION_SECONDS,
})

/** What a topic is set to keep; `bytes` of one partition. Infinity where there is no bound. */
export type Kept = { seconds: number; bytes: number }

export type Topics = {
  /** Creates what the metadata of both topics says is missing, and warns once of what weakens a topic. Never throws. */
  tend(metadata: Metadata): Promise<void>
  /** Creates both topics where they are missing. @throws when Kafka is away or refuses */
  ensure(): Promise<void>
  /** How many in-sync replicas a topic needs to take records (`min.insync.replicas`); 1 where that is not known. */
  minInSync(topic: string): number
  /** What a topic keeps; null where that is not known. */
  kept(topic: string): Kept | null
}

/** The settings of a topic that keeps so much on so many partitions. */
function retentionEntries({ seconds, bytes }: TopicOptions['retention'], partitions: number) {
  const entries = { 'retention.ms': seconds * 1000, 'segment.ms': Math.ceil((seconds * 1000) / SEGMENTS) }
  const each = Math.floor(bytes / partitions)
  const segment = Math.min(Math.max(Math.floor(each / SEGMENTS), MIN_SEGMENT_BYTES), MAX_SEGMENT_BYTES)
  const bounds = bytes === 0 ? {} : { 'retention.bytes': each, 'segment.bytes': segment }
  return Object.entries({ ...entries, ...bounds }).map(([name, value]) => ({ name, value: String(value) }))
}

/** What about a topic's retention does not fit, in words; null when nothing. */
function misfit(kept: Kept, historySeconds: number): string | null {
  if (kept.seconds === Number.POSITIVE_INFINITY && kept.bytes === Number.POSITIVE_INFINITY)
    return 'it keeps records for ever: its disk will be full'
  if (kept.seconds >= historySeconds) return null
  return `it keeps records for ${kept.seconds} s, histories go back ${historySeconds} s`
}

export function createTopics(kafka: KafkaClient, options: TopicOptions, logger: Logger): Topics {
  const { topic, partitions: numPartitions, replicationFactor = -1, retention, historySeconds } = options
  // the broker's own time: with ours it refuses records when our clock is an hour ahead
  const clock = { name: 'message.timestamp.type', value: 'LogAppendTime' }
  const wantedTopic = (name: string, count: number, keeps: TopicOptions['retention']) => ({
    topic: name,
    numPartitions: count,
    replicationFactor,
    configEntries: [clock, ...retentionEntries(keeps, count)],
  })
  const wanted = [wantedTopic(topic, numPartitions, retention), wantedTopic(deadLetterTopic(topic), 1, DEAD_LETTERS)]
  const needed = new Map<string, number>()
  const keeps = new Map<string, Kept>()
  const inspected = new Set<string>()
  let triedMs = Number.NEGATIVE_INFINITY
  let lastProblem = ''

  const withAdmin = async <T>(use: (admin: ReturnType<KafkaClient['admin']>) => Promise<T>): Promise<T> => {
    const admin = kafka.admin({ retry: { retries: 1 } })
    try {
      await admin.connect()
      return await use(admin)
    } finally {
      await admin.disconnect().catch(() => {})
    }
  }

  const create = (missing: typeof wanted) =>
    withAdmin(async (admin) => {
      const created = await admin.createTopics({ topics: missing, waitForLeaders: true })
      if (created) logger.info({ topics: missing.map((one) => one.topic) }, 'topics created')
    })

  /** What weakens the promise on this topic, in words. */
  const weaknesses = (name: string, metadata: Metadata, config: Map<string, string>): string[] => {
    const partitions = metadata.topics.get(name)
    if (!Array.isArray(partitions)) return []
    const replicas = Math.min(...partitions.map((partition) => partition.replicas))
    const safe = Math.min(SAFE_REPLICAS, metadata.brokers)
    const found: string[] = []
    if (replicas < safe) found.push(`${replicas} of ${safe} replicas`)
    if (metadata.brokers > 1 && config.get('min.insync.replicas') === '1') found.push('min.insync.replicas is 1')
    if (config.get('unclean.leader.election.enable') === 'true') found.push('unclean leader election is on')
    return found
  }

  const inspect = (names: string[], metadata: Metadata) =>
    withAdmin(async (admin) => {
      const resources = names.map((name) => ({ type: TOPIC_RESOURCE, name, configNames: CONFIG_NAMES }))
      const described = await admin.describeConfigs({ includeSynonyms: false, resources })
      for (const { resourceName: name, configEntries: entries } of described.resources) {
        const config = new Map(entries.map(({ configName, configValue }) => [configName, configValue]))
        needed.set(name, Number(config.get('min.insync.replicas') ?? 1)) // Redpanda has no such setting
        const found = weaknesses(name, metadata, config)
        if (found.length > 0 && !inspected.has(name)) {
          logger.warn({ topic: name, weaknesses: found }, 'acknowledged records may be lost when a broker is')
        }
        compare(name, config)
        inspected.add(name)
      }
    })

  /** Says once what about a topic's retention does not fit: it is the user's, and left as it is. */
  const compare = (name: string, config: Map<string, string>) => {
    const bound = (entry: string) => {
      const value = Number(config.get(entry) ?? -1)
      return value < 0 ? Number.POSITIVE_INFINITY : value
    }
    if (!config.has('retention.ms')) return
    const kept = { seconds: bound('retention.ms') / 1000, bytes: bound('retention.bytes') }
    keeps.set(name, kept)
    const words = misfit(kept, name === topic ? historySeconds : 0)
    if (words !== null && !inspected.has(name)) logger.warn({ topic: name, retention: words }, RETENTION)
  }

  return {
    async tend(metadata) {
      if (performance.now() - triedMs < CREATE_PAUSE_MS) return
      const isMissing = (name: string) => {
        const found = metadata.topics.get(name)
        return found instanceof Error && found.type === 'UNKNOWN_TOPIC_OR_PARTITION'
      }
      const missing = wanted.filter((one) => isMissing(one.topic))
      const present = wanted.map((one) => one.topic).filter((name) => Array.isArray(metadata.topics.get(name)))
      const isShort = (name: string) => {
        const partitions = metadata.topics.get(name)
        return Array.isArray(partitions) && partitions.some(({ inSync }) => inSync < (needed.get(name) ?? 1))
      }
      const unknown = present.filter((name) => !inspected.has(name) || isShort(name))
      try {
        if (missing.length + unknown.length > 0) triedMs = performance.now()
        if (missing.length > 0) await create(missing)
        if (unknown.length > 0) await inspect(unknown, metadata)
        lastProblem = ''
      } catch (error) {
        const problem = describe(error)
        if (problem !== lastProblem) logger.warn({ error: problem }, 'topics could not be created or looked at')
        lastProblem = problem
      }
    },
    async ensure() {
      await withAdmin(async (admin) => {
        const present = await admin.listTopics()
        const missing = wanted.filter((one) => !present.includes(one.topic))
        if (missing.length > 0) await create(missing)
      })
    },
    minInSync: (name) => needed.get(name) ?? 1,
    kept: (name) => keeps.get(name) ?? null,
  }
}

const CONFIG_NAMES = ['min.insync.replicas', 'unclean.leader.election.enable', 'retention.ms', 'retention.bytes']
const RETENTION = 'the retention of a topic does not fit'
