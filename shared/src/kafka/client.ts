// kafkajs as both services use it: its options, its logs in pino, and the mend of its idle timer.
import { createRequire } from 'node:module'
import kafkajs, { type ICustomPartitioner, type KafkaConfig, logLevel, type SASLOptions } from 'kafkajs'
import type { Logger } from 'pino'
import type { CommonConfig } from '../common-config.js'
import { partitionOf } from './partitioner.js'
import { createGuardedSocketFactory } from './socket.js'

export type { KafkaMessage } from 'kafkajs'
export type KafkaClient = InstanceType<typeof kafkajs.Kafka>

const require = createRequire(import.meta.url)
const KAFKAJS = '2.2.4'
const { version } = require('kafkajs/package.json') as { version: string }
if (version !== KAFKAJS)
  throw new Error(`shared/src/kafka relies on the insides of kafkajs ${KAFKAJS}, this is ${version}`)

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
const { prototype } = require('kafkajs/src/network/requestQueue') as { prototype: RequestQueue }
prototype.scheduleCheckPendingRequests = function schedule(this: RequestQueue) {
  if (this.pending.length === 0 || this.throttleCheckTimeoutId) return
  const delayMs = Math.max(this.throttledUntil - Date.now(), CHECK_PENDING_MS)
  this.throttleCheckTimeoutId = setTimeout(() => {
    this.throttleCheckTimeoutId = null
    this.checkPendingRequests()
  }, delayMs)
}

/** How Kafka is reached, as kafkajs takes it. */
export type KafkaOptions = KafkaConfig & { brokers: string[]; clientId: string }

/** Each request is tried a few times only: whoever makes it decides what a failure means. */
export function kafkaOptions(clientId: string, config: CommonConfig, logger: Logger): KafkaOptions {
  const { KAFKA_CA_FILE: ca, KAFKA_CERT_FILE: cert, KAFKA_KEY_FILE: key } = config
  const { KAFKA_SASL_MECHANISM: mechanism, KAFKA_USERNAME: username, KAFKA_PASSWORD: password } = config
  return {
    clientId,
    brokers: config.KAFKA_BROKERS,
    socketFactory: createGuardedSocketFactory(),
    ...(config.KAFKA_TLS ? { ssl: { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) } } : {}),
    ...(mechanism ? { sasl: { mechanism, username, password } as SASLOptions } : {}),
    connectionTimeout: 3000,
    requestTimeout: 10_000,
    retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 2 },
    logLevel: logLevel.INFO,
    logCreator:
      () =>
      ({ namespace, log }) => {
        // the caller logs a failure once; the client would log it at every try
        const { message, error } = log as { message: string; error?: string }
        logger.debug({ kafka: namespace || 'client', ...(error ? { error } : {}) }, message)
      },
  }
}

export const createKafka = (clientId: string, config: CommonConfig, logger: Logger): KafkaClient =>
  new kafkajs.Kafka(kafkaOptions(clientId, config, logger))

/** Java's murmur2 partitioning for kafkajs's own producer; a message keeps the partition of its first attempt. */
export const stickyPartitioner: ICustomPartitioner =
  () =>
  ({ message, partitionMetadata }) => {
    message.partition ??= partitionOf(Buffer.from(message.key ?? ''), partitionMetadata.length)
    return message.partition
  }
