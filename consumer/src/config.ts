// The consumer's configuration: every environment variable it knows, with its default and bounds.
import { type CommonConfig, commonNeeds, commonSchema, commonWarnings } from '@iot/shared/common-config'
import { given, integer, type Need, pemFile, url } from '@iot/shared/config'
import { z } from 'zod'

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
  BATCH_SIZE: integer(1000, 1, 10_000),
  BATCH_INTERVAL_MS: integer(0, 0, 600_000),
  HISTORY_RETENTION_SECONDS: integer(18_000, 1, 31_536_000),
  HEALTH_HOST: z.string().default('127.0.0.1'),
  HEALTH_PORT: integer(8001, 0, 65_535),
}

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
