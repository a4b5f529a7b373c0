// The topics themselves: created where they are missing, looked at for what weakens the promise.
import type { Logger } from 'pino'
import { deadLetterTopic } from '../contract.js'
import { describe } from '../errors.js'
import type { KafkaClient } from './client.js'
import type { Metadata } from './connections.js'

const SAFE_REPLICAS = 3
const TOPIC_RESOURCE = 2
const CREATE_PAUSE_MS = 1000

export type TopicOptions = {
  topic: string
  /** Partitions of a topic that is created; its dead letters' topic has one. */
  partitions: number
  /** Replicas of a topic that is created; undefined for the cluster's default. */
  replicationFactor?: number | undefined
}

export type Topics = {
  /** Creates what the metadata of both topics says is missing, and warns once of what weakens a topic. Never throws. */
  tend(metadata: Metadata): Promise<void>
  /** Creates both topics where they are missing. @throws when Kafka is away or refuses */
  ensure(): Promise<void>
  /** How many in-sync replicas a topic needs to take records (`min.insync.replicas`); 1 where that is not known. */
  minInSync(topic: string): number
}

export function createTopics(kafka: KafkaClient, options: TopicOptions, logger: Logger): Topics {
  const { topic, partitions: numPartitions, replicationFactor = -1 } = options
  // the broker's own time: with ours it refuses records when our clock is an hour ahead
  const configEntries = [{ name: 'message.timestamp.type', value: 'LogAppendTime' }]
  const wanted = [
    { topic, numPartitions, replicationFactor, configEntries },
    { topic: deadLetterTopic(topic), numPartitions: 1, replicationFactor, configEntries },
  ]
  const needed = new Map<string, number>()
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
      const configNames = ['min.insync.replicas', 'unclean.leader.election.enable']
      const resources = names.map((name) => ({ type: TOPIC_RESOURCE, name, configNames }))
      const described = await admin.describeConfigs({ includeSynonyms: false, resources })
      for (const { resourceName: name, configEntries: entries } of described.resources) {
        const config = new Map(entries.map(({ configName, configValue }) => [configName, configValue]))
        needed.set(name, Number(config.get('min.insync.replicas') ?? 1)) // Redpanda has no such setting
        const found = weaknesses(name, metadata, config)
        if (found.length > 0 && !inspected.has(name)) {
          logger.warn({ topic: name, weaknesses: found }, 'acknowledged records may be lost when a broker is')
        }
        inspected.add(name)
      }
    })

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
  }
}
