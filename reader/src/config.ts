// The reader's configuration: every environment variable it knows, with its default and bounds.
import { type CommonConfig, commonNeeds, commonSchema, commonWarnings, groupId } from '@iot/shared/common-config'
import { integer, list, type Need } from '@iot/shared/config'
import { type ApiConfig, apiSchema, apiWarnings } from '@iot/shared/http/config'
import { type RedisConfig, redisNeeds, redisSchema, redisWarnings } from '@iot/shared/redis/config'
import { z } from 'zod'

/** Addresses of other services, with commas; the text that is returned has no slash at its end. */
const urls = (fallback: string) =>
  z
    .string()
    .default(fallback)
    .transform((text) => list(text).map((url) => url.replace(/\/+$/, '')))
    .refine(
      (all) => all.length > 0 && all.every((url) => /^https?:\/\/[^/?#]/.test(url) && URL.canParse(url)),
      'must be http:// or https:// URLs, with commas',
    )

export const readerSchema = {
  ...commonSchema,
  ...redisSchema,
  ...apiSchema,
  KAFKA_GROUP_ID: groupId,
  BRIDGE_URLS: urls('http://127.0.0.1:8000'),
  CONSUMER_URLS: urls('http://127.0.0.1:8001'),
  MAX_LISTED_DEVICES: integer(1_000_000, 1, 10_000_000),
  MAX_LIVE_STREAMS: integer(500, 1, 100_000),
  MAX_LIVE_STREAMS_PER_ADDRESS: integer(20, 1, 100_000),
  READER_HOST: z.string().default('127.0.0.1'),
  READER_NICE: integer(10, 0, 19),
  READER_PORT: integer(8002, 0, 65_535),
}

export const readerNeeds: Need[] = [...commonNeeds, ...redisNeeds]

/** What whoever configured it should know, a line each. */
export const readerWarnings = (config: CommonConfig & RedisConfig & ApiConfig & { READER_HOST: string }): string[] => [
  ...commonWarnings(config),
  ...redisWarnings(config),
  ...apiWarnings(config, config.READER_HOST),
]
