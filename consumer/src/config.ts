// The consumer's configuration: every environment variable it knows, with its default and bounds.
import { type CommonConfig, commonNeeds, commonSchema, commonWarnings, groupId } from '@iot/shared/common-config'
import { integer, type Need } from '@iot/shared/config'
import { type RedisConfig, redisNeeds, redisSchema, redisWarnings } from '@iot/shared/redis/config'
import { z } from 'zod'
import type { Limits } from './redis/scripts.js'

export const consumerSchema = {
  ...commonSchema,
  ...redisSchema,
  KAFKA_GROUP_ID: groupId,
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

export const consumerNeeds: Need[] = [...commonNeeds, ...redisNeeds]

/** What a device and a fleet may take of Redis, of what is configured. */
export const redisLimits = (config: ConsumerConfig): Limits => ({
  lastStateSeconds: config.LAST_STATE_RETENTION_SECONDS,
  knownDevices: config.MAX_KNOWN_DEVICES,
  historyReadings: config.HISTORY_MAX_READINGS,
  historyBytes: config.HISTORY_MAX_BYTES,
})

/** What whoever configured it should know, a line each. */
export const consumerWarnings = (config: CommonConfig & RedisConfig): string[] => [
  ...commonWarnings(config),
  ...redisWarnings(config),
]
