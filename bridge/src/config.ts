// The bridge's configuration: every environment variable it knows, with its default and bounds.

import { type CommonConfig, commonNeeds, commonSchema, commonWarnings } from '@iot/shared/common-config'
import { integer, isLoopback, list, type Need, pemFile, url } from '@iot/shared/config'
import { type ApiConfig, apiSchema, apiWarnings } from '@iot/shared/http/config'
import { z } from 'zod'
import { BINARY_PAYLOADS } from './ingest.js'
import { prefixProblem } from './topics.js'

export const bridgeSchema = {
  ...commonSchema,
  ...apiSchema,
  MQTT_URL: url('mqtt://broker.hivemq.com:1883', ['mqtt', 'mqtts', 'ws', 'wss', 'tcp', 'ssl']),
  MQTT_USERNAME: z.string().optional(),
  MQTT_PASSWORD: z.string().optional(),
  MQTT_CA_FILE: pemFile(),
  MQTT_CERT_FILE: pemFile(),
  MQTT_KEY_FILE: pemFile(),
  MQTT_CLIENT_ID: z
    .string()
    .regex(/^[^+#\s$][^+#\s]{0,199}$/, 'must be 1 to 200 characters without spaces, + and #, and not begin with $')
    .optional(),
  MQTT_STALL_TIMEOUT_MS: integer(30_000, 0, 3_600_000),
  MQTT_TOPIC_PREFIX: z
    .string()
    .superRefine((prefix, context) => {
      const message = prefixProblem(prefix)
      if (message !== null) context.addIssue({ code: 'custom', message })
    })
    .default('devices'),
  TIMESTAMP_PRECISION: z.enum(['s', 'us']).default('s'),
  DEVICE_OFFLINE_TIMEOUT: integer(60, 1, 86_400),
  MAX_ONLINE_DEVICES: integer(200_000, 1, 10_000_000),
  PRESENCE_FROM: z
    .string()
    .default('hello')
    .transform(list)
    .refine(
      (kinds) => kinds.includes('hello') && kinds.every((kind) => kind === 'hello' || kind === 'data'),
      'must be hello, or hello,data',
    ),
  PRESENCE_OFFLINE_PAYLOAD: z.string().max(1000, 'must have at most 1000 characters').optional(),
  MAX_PAYLOAD_BYTES: integer(262_144, 1, 100_000_000),
  BINARY_PAYLOADS: z.enum(BINARY_PAYLOADS).default('dead-letter'),
  MAX_IN_FLIGHT: integer(2000, 1, 60_000),
  COMMAND_TIMEOUT_MS: integer(5000, 100, 60_000),
  API_HOST: z.string().default('127.0.0.1'),
  API_PORT: integer(8000, 0, 65_535),
  READER_URL: z
    .string()
    .refine((text) => /^https?:\/\//.test(text) && URL.canParse(text), 'must be an http:// or https:// URL')
    .optional(),
  DATA_DIR: z.string().default('.local/data/bridge'),
}

export const bridgeNeeds: Need[] = [
  ...commonNeeds,
  ['MQTT_CA_FILE', 'MQTT_URL', ['mqtts://', 'wss://']],
  ['MQTT_CERT_FILE', 'MQTT_URL', ['mqtts://', 'wss://']],
  ['MQTT_CERT_FILE', 'MQTT_KEY_FILE'],
  ['MQTT_KEY_FILE', 'MQTT_CERT_FILE'],
]

/** What whoever configured it should know, a line each. */
export function bridgeWarnings(
  config: CommonConfig & ApiConfig & { API_HOST: string; MQTT_URL: string; MQTT_PASSWORD?: string | undefined },
): string[] {
  const broker = new URL(config.MQTT_URL)
  const hasPassword = config.MQTT_PASSWORD !== undefined || broker.password !== ''
  const isClear = ['mqtt:', 'ws:', 'tcp:'].includes(broker.protocol) && !isLoopback(broker.hostname)
  return [
    ...commonWarnings(config),
    ...(hasPassword && isClear ? ['MQTT_PASSWORD crosses the network in the clear: use mqtts:// or wss://'] : []),
    ...apiWarnings(config, config.API_HOST),
  ]
}
