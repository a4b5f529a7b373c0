// The consumer's configuration: every environment variable it knows, with its default and bounds.
import { type CommonConfig, commonNeeds, commonSchema, commonWarnings } from '@iot/shared/common-config'
import { given, integer, type Need, pemFile, url } from '@iot/shared/config'
import { z } from 'zod'
import type { Limits } from './redis/scripts.js'

const DEFAULT_TOPIC = commonSchema.KAFKA_TOPIC.parse(undefined)
const DEFAULT_GROUP = 'kafka-redis-consumer'

/** The group of a consumer that is given none: each topic has one of its own. */
export const defaultGroupId = (topic: string): string =>
  topic === DEFAULT_TOPIC ? DEFAULT_GROUP : `${DEFAULT_GROUP}-${topic}`

export const consumerSchema = {
  ...commonSchema,
  KAFKA_GROUP_ID: z.string().min(1).optional(),
  REDIS_URL: url('redis://127.0.0.1:6379', ['redis', 'rediss']),
  REDIS_USERNAME: z.string().optional(),
  REDIS_PASSWORD: z.string().optional(),
  REDIS_CA_FILE: pemFile(),
  REDIS_DURABILITY: z.enum(['server', 'fsync']).default('server'),
  REDIS_WHEN_FULL: z.enum(['wait', 'drop-history']).default('wait'),
  BATCH_SIZE: integer(1000, 1, 10_000),
  BATCH_INTERVAL_MS: integer(0, 0, 600_000),
  HISTORY_MAX_READINGS: integer(0, 0, 100_000_000),
  HISTORY_MAX_BYTES: integer(0, 0, 1_000_000_000_000),
  LAST_STATE_RETENTION_SECONDS: integer(0, 0, 315_360_000),
  MAX_KNOWN_DEVICES: integer(0, 0, 1_000_000_000),
  HEALTH_HOST: z.string().default('127.0.0.1'),
  HEALTH_PORT: integer(8001, 0, 65_535),
}
export type ConsumerConfig = z.output<z.ZodObject<typeof consumerSchema>>

export const consumerNeeds: Need[] = [...commonNeeds, ['REDIS_CA_FILE', 'REDIS_URL', ['rediss://']]]

/** What a connection to Redis shows, of what is configured. */
export const redisAccess = (config: {
  REDIS_USERNAME?: string | undefined
  REDIS_PASSWORD?: string | undefined
  REDIS_CA_FILE?: string | undefined
}) =>
  given({
    username: config.REDIS_USERNAME,
    password: config.REDIS_PASSWORD,
    tls: config.REDIS_CA_FILE === undefined ? undefined : { ca: config.REDIS_CA_FILE },
  })

/** What a device and a fleet may take of Redis, of what is configured. */
export const redisLimits = (config: ConsumerConfig): Limits => ({
  lastStateSeconds: config.LAST_STATE_RETENTION_SECONDS,
  knownDevices: config.MAX_KNOWN_DEVICES,
  historyReadings: config.HISTORY_MAX_READINGS,
  historyBytes: config.HISTORY_MAX_BYTES,
})

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/

/** What whoever configured it should know, a line each. */
export function consumerWarnings(
  config: CommonConfig & { REDIS_URL: string; REDIS_PASSWORD?: string | undefined },
): string[] {
  const { protocol, hostname, password } = new URL(config.REDIS_URL)
  const hasPassword = config.REDIS_PASSWORD !== undefined || password !== ''
  const isClear = protocol === 'redis:' && !LOOPBACK.test(hostname)
  const words = 'REDIS_PASSWORD crosses the network in the clear: use rediss://'
  return [...commonWarnings(config), ...(hasPassword && isClear ? [words] : [])]
}
