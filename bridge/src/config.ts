// The bridge's configuration: every environment variable it knows, with its default and bounds.

import { isIP } from 'node:net'
import { type CommonConfig, commonNeeds, commonSchema, commonWarnings } from '@iot/shared/common-config'
import { ConfigError, integer, type Need, pemFile, url } from '@iot/shared/config'
import { z } from 'zod'
import { BINARY_PAYLOADS } from './ingest.js'
import { prefixProblem } from './topics.js'

const list = (text: string): string[] =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')
/** An IP address, or a range of them such as 10.0.0.0/8. */
function isAddress(text: string): boolean {
  const [address = '', bits, ...more] = text.split('/')
  const version = isIP(address)
  if (version === 0 || more.length > 0) return false
  return bits === undefined || (/^\d+$/.test(bits) && Number(bits) >= 1 && Number(bits) <= (version === 4 ? 32 : 128))
}

export const bridgeSchema = {
  ...commonSchema,
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
  API_KEY: z
    .string()
    .transform((text) => list(text.replaceAll('\n', ','))) // in a file one key a line
    .refine((keys) => keys.length > 0, 'must have a key')
    .refine((keys) => keys.every((key) => key.length >= 16), 'each key must have 16 characters or more')
    .refine((keys) => keys.every((key) => /^[\x21-\x7e]+$/.test(key)), 'a key must be of visible ASCII characters')
    .optional(),
  API_AUTH: z.enum(['key', 'none']).default('key'),
  API_RATE_LIMIT: integer(1000, 1, 1_000_000),
  API_TRUST_PROXY: z
    .string()
    .default('false')
    .transform((text) => (text === 'true' || text === 'false' ? text === 'true' : list(text)))
    .refine(
      (value) => !Array.isArray(value) || value.every(isAddress),
      'must be true, false, or IP addresses and ranges with commas',
    ),
  API_ALLOWED_HOSTS: z
    .string()
    .transform(list)
    .refine(
      (names) => names.every((name) => /^[^\s:/*]+$/.test(name) || isIP(name) === 6),
      'must be host names without ports, with commas',
    )
    .optional(),
  API_HOST: z.string().default('127.0.0.1'),
  API_PORT: integer(8000, 0, 65_535),
  DATA_DIR: z.string().default('.local/data/bridge'),
}

export const bridgeNeeds: Need[] = [
  ...commonNeeds,
  ['MQTT_CA_FILE', 'MQTT_URL', ['mqtts://', 'wss://']],
  ['MQTT_CERT_FILE', 'MQTT_URL', ['mqtts://', 'wss://']],
  ['MQTT_CERT_FILE', 'MQTT_KEY_FILE'],
  ['MQTT_KEY_FILE', 'MQTT_CERT_FILE'],
]

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[?::1\]?)$/

type ApiAccess = { API_HOST: string; API_AUTH: 'key' | 'none'; API_KEY?: string[] | undefined }

/**
 * Refuses an API that strangers could reach without a key.
 * @throws {ConfigError}
 */
export function checkApiAccess({ API_HOST, API_AUTH, API_KEY }: ApiAccess): void {
  if (API_KEY || API_AUTH === 'none' || LOOPBACK.test(API_HOST)) return
  throw new ConfigError([`API_KEY: is needed, since API_HOST is ${API_HOST}; API_AUTH=none opens it to everybody`])
}

/** What whoever configured it should know, a line each. */
export function bridgeWarnings(
  config: CommonConfig & ApiAccess & { MQTT_URL: string; MQTT_PASSWORD?: string | undefined },
): string[] {
  const broker = new URL(config.MQTT_URL)
  const hasPassword = config.MQTT_PASSWORD !== undefined || broker.password !== ''
  const isClear = ['mqtt:', 'ws:', 'tcp:'].includes(broker.protocol) && !LOOPBACK.test(broker.hostname)
  const isOpen = !config.API_KEY && !LOOPBACK.test(config.API_HOST)
  return [
    ...commonWarnings(config),
    ...(hasPassword && isClear ? ['MQTT_PASSWORD crosses the network in the clear: use mqtts:// or wss://'] : []),
    ...(isOpen ? [`everybody who reaches the API on ${config.API_HOST} may command devices: no API_KEY is set`] : []),
  ]
}
