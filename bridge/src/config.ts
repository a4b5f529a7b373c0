// The bridge's configuration: every environment variable it knows, with its default and bounds.
import { commonSchema, integer, url } from '@iot/shared/config'
import { z } from 'zod'

export const bridgeSchema = {
  ...commonSchema,
  MQTT_URL: url('mqtt://broker.hivemq.com:1883', ['mqtt', 'mqtts', 'ws', 'wss', 'tcp', 'ssl']),
  MQTT_CLIENT_ID: z.string().max(200, 'must be at most 200 characters').optional(),
  MQTT_TOPIC_PREFIX: z
    .string()
    .regex(/^[^+#\s/][^+#\s]*[^+#\s/]$|^[^+#\s/]$/, 'must be topic levels without wildcards, such as devices')
    .default('devices'),
  KAFKA_TOPIC_PARTITIONS: integer(6, 1, 10_000),
  DEVICE_OFFLINE_TIMEOUT: integer(60, 1, 86_400),
  MAX_ONLINE_DEVICES: integer(200_000, 1, 10_000_000),
  MAX_PAYLOAD_BYTES: integer(262_144, 1, 100_000_000),
  MAX_IN_FLIGHT: integer(1000, 1, 60_000),
  COMMAND_TIMEOUT_MS: integer(5000, 100, 60_000),
  API_HOST: z.string().default('127.0.0.1'),
  API_PORT: integer(8000, 0, 65_535),
  DATA_DIR: z.string().default('.local/data/bridge'),
}
