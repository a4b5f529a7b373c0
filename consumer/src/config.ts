// The consumer's configuration: every environment variable it knows, with its default and bounds.
import { type CommonConfig, commonNeeds, commonSchema, commonWarnings, groupId } from '@iot/shared/common-config'
import { integer, type Need } from '@iot/shared/config'
import { type RedisConfig, redisNeeds, redisSchema, redisWarnings } from '@iot/shared/redis-config'
import { z } from 'zod'

export const consumerSchema = {
  ...commonSchema,
  ...redisSchema,
  KAFKA_GROUP_ID: groupId,
  REDIS_DURABILITY: z.enum(['server', 'fsync']).default('server'),
  BATCH_SIZE: integer(1000, 1, 10_000),
  BATCH_INTERVAL_MS: integer(0, 0, 600_000),
  HISTORY_RETENTION_SECONDS: integer(18_000, 1, 31_536_000),
  HEALTH_HOST: z.string().default('127.0.0.1'),
  HEALTH_PORT: integer(8001, 0, 65_535),
}

export const consumerNeeds: Need[] = [...commonNeeds, ...redisNeeds]

/** What whoever configured it should know, a line each. */
export const consumerWarnings = (config: CommonConfig & RedisConfig): string[] => [
  ...commonWarnings(config),
  ...redisWarnings(config),
]
