// The Kafka client as both services use it: pino logs, Java's partitioner, topics made when missing,
// and a mend for kafkajs's idle timer.
import './kafka-produce.js' // before kafkajs, of which it replaces parts
import { createRequire } from 'node:module'
import kafkajs, { type ICustomPartitioner, type Kafka as KafkaClient, logLevel, type SASLOptions } from 'kafkajs'
import type { Logger } from 'pino'
import { backoffMs } from './backoff.js'
import type { CommonConfig } from './config.js'
import { deadLetterTopic } from './contract.js'
import { describe } from './errors.js'
import { partitionOf } from './kafka-produce.js'

const { Kafka } = kafkajs

export type { KafkaClient }

// kafkajs re-arms a timer of a negative delay (1 ms) on every connection for ever, though it has nothing to wait for:
// 7 % of a core, and TimeoutNegativeWarning on Node 24 (https://github.com/tulios/kafkajs/issues/1751).
// The timer is of use only while requests are pending behind a throttle.
type RequestQueue = {
  pending: unknown[]
  throttledUntil: number
  throttleCheckTimeoutId: NodeJS.Timeout | null
  checkPendingRequests(): void
  scheduleCheckPendingRequests(): void
}
const CHECK_PENDING_MS = 10
const { prototype } = createRequire(import.meta.url)('kafkajs/src/network/requestQueue') as { prototype: RequestQueue }
prototype.scheduleCheckPendingRequests = function schedule(this: RequestQueue) {
  if (this.pending.length === 0 || this.throttleCheckTimeoutId) return
  const delayMs = Math.max(this.throttledUntil - Date.now(), CHECK_PENDING_MS)
  this.throttleCheckTimeoutId = setTimeout(() => {
    this.throttleCheckTimeoutId = null
    this.checkPendingRequests()
  }, delayMs)
}

/** A client that tries each request a few times only: whoever uses it decides what a failure means. */
export function createKafka(clientId: string, config: CommonConfig, logger: Logger): KafkaClient {
  const { KAFKA_CA_FILE: ca, KAFKA_CERT_FILE: cert, KAFKA_KEY_FILE: key } = config
  const { KAFKA_SASL_MECHANISM: mechanism, KAFKA_USERNAME: username, KAFKA_PASSWORD: password } = config
  return new Kafka({
    clientId,
    brokers: config.KAFKA_BROKERS,
    ...(config.KAFKA_TLS ? { ssl: { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) } } : {}),
    ...(mechanism ? { sasl: { mechanism, username, password } as SASLOptions } : {}),
    connectionTimeout: 3000,
    requestTimeout: 10_000,
    retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 2 },
    logLevel: logLevel.INFO,
    logCreator:
      () =>
      ({ namespace, log }) => {
        // whoever calls says once what failed; the client says it at every try
        const { message, error } = log as { message: string; error?: string }
        logger.debug({ kafka: namespace || 'client', ...(error ? { error } : {}) }, message)
      },
  })
}

/**
 * Java's murmur2 partitioning, made sticky: a message keeps the partition of its first attempt. A repeated send must
 * carry the same records to the same partition, or the broker's duplicate check would take another record for it.
 */
export const stickyPartitioner: ICustomPartitioner =
  () =>
  ({ message, partitionMetadata }) => {
    message.partition ??= partitionOf(Buffer.from(message.key ?? ''), partitionMetadata.length)
    return message.partition
  }

/** Creates `iot-data` and its dead letters' topic where missing; tries until Kafka is there or `stopped()` says so. */
export async function ensureTopics(
  kafka: KafkaClient,
  topic: string,
  numPartitions: number,
  logger: Logger,
  stopped: () => boolean,
): Promise<void> {
  // the broker's own time: with ours it refuses records when our clock is an hour ahead
  const configEntries = [{ name: 'message.timestamp.type', value: 'LogAppendTime' }]
  const wanted = [
    { topic, numPartitions, configEntries },
    { topic: deadLetterTopic(topic), numPartitions: 1, configEntries },
  ]
  for (let attempt = 0; !stopped(); attempt++) {
    const admin = kafka.admin({ retry: { retries: 1 } })
    try {
      await admin.connect()
      const there = await admin.listTopics()
      const topics = wanted.filter((want) => !there.includes(want.topic))
      if (topics.length > 0 && (await admin.createTopics({ topics, waitForLeaders: true })))
        logger.info({ topics: topics.map((made) => made.topic) }, 'topics created')
      return
    } catch (err) {
      if (attempt % 20 === 0) logger.warn({ error: describe(err) }, 'waiting for Kafka')
      await new Promise((resolve) => setTimeout(resolve, backoffMs(attempt)))
    } finally {
      await admin.disconnect().catch(() => {})
    }
  }
}
