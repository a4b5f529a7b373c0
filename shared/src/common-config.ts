// What every service is configured by: Kafka, the log, the time to stop.
import { z } from 'zod'
import { integer, type Need, pemFile, wholeNumber } from './config.js'

export const commonSchema = {
  KAFKA_BROKERS: z
    .string()
    .default('127.0.0.1:19092')
    .transform((list) => list.split(',').map((broker) => broker.trim()))
    .refine(
      (list) => list.every((broker) => /^[^\s:/]+:\d+$/.test(broker)),
      'must be host:port, or several with commas',
    ),
  KAFKA_TLS: z
    .enum(['true', 'false'])
    .default('false')
    .transform((text) => text === 'true'),
  KAFKA_CA_FILE: pemFile(),
  KAFKA_CERT_FILE: pemFile(),
  KAFKA_KEY_FILE: pemFile(),
  KAFKA_SASL_MECHANISM: z.enum(['plain', 'scram-sha-256', 'scram-sha-512']).optional(),
  KAFKA_USERNAME: z.string().optional(),
  KAFKA_PASSWORD: z.string().optional(),
  KAFKA_TOPIC: z
    .string()
    .regex(/^[a-zA-Z0-9._-]{1,200}$/, 'must be 1 to 200 letters, digits, dots, underscores or hyphens')
    .default('iot-data'),
  KAFKA_TOPIC_PARTITIONS: integer(6, 1, 10_000),
  KAFKA_REPLICATION_FACTOR: wholeNumber(1, 100).optional(),
  KAFKA_RETENTION_HOURS: integer(24, 1, 87_600),
  KAFKA_RETENTION_BYTES: integer(0, 0, 1_000_000_000_000_000),
  HISTORY_RETENTION_SECONDS: integer(18_000, 1, 31_536_000),
  LOG_LEVEL: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'),
  SHUTDOWN_TIMEOUT_MS: integer(10_000, 100, 600_000),
}
export type CommonConfig = z.output<z.ZodObject<typeof commonSchema>>

const DEFAULT_TOPIC = commonSchema.KAFKA_TOPIC.parse(undefined)
const DEFAULT_GROUP = 'kafka-redis-consumer'

/** KAFKA_GROUP_ID, of the consumers and of those that look at them. */
export const groupId = z.string().min(1).optional()

/** The group of a consumer that is given none: each topic has one of its own. */
export const defaultGroupId = (topic: string): string =>
  topic === DEFAULT_TOPIC ? DEFAULT_GROUP : `${DEFAULT_GROUP}-${topic}`

export const commonNeeds: Need[] = [
  ['KAFKA_CA_FILE', 'KAFKA_TLS', ['true']],
  ['KAFKA_CERT_FILE', 'KAFKA_TLS', ['true']],
  ['KAFKA_CERT_FILE', 'KAFKA_KEY_FILE'],
  ['KAFKA_KEY_FILE', 'KAFKA_CERT_FILE'],
  ['KAFKA_SASL_MECHANISM', 'KAFKA_USERNAME'],
  ['KAFKA_SASL_MECHANISM', 'KAFKA_PASSWORD'],
  ['KAFKA_USERNAME', 'KAFKA_SASL_MECHANISM'],
  ['KAFKA_PASSWORD', 'KAFKA_SASL_MECHANISM'],
]

/** What whoever configured it should know, a line each. */
export function commonWarnings(config: CommonConfig): string[] {
  if (config.KAFKA_SASL_MECHANISM !== 'plain' || config.KAFKA_TLS) return []
  return ['KAFKA_PASSWORD crosses the network in the clear: set KAFKA_TLS, or use SCRAM']
}
