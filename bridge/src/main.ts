// The bridge: MQTT in, Kafka out, REST beside it. Wiring only.
import { readFileSync } from 'node:fs'
import { given, loadConfig } from '@iot/shared/config'
import { apiOptions, checkApiAccess } from '@iot/shared/http/config'
import { createHttpServer } from '@iot/shared/http/server'
import { createKafka, kafkaOptions } from '@iot/shared/kafka/client'
import { createConnections } from '@iot/shared/kafka/connections'
import { createTopics, topicOptions } from '@iot/shared/kafka/topics'
import { runService } from '@iot/shared/lifecycle'
import { createPublisher } from '@iot/shared/publisher'
import { createAccept } from './accept.js'
import { createCommandRecords } from './api/command-records.js'
import { commandCalls } from './api/commands.js'
import { deviceCalls } from './api/devices.js'
import { home } from './api/home.js'
import { createControlConnection } from './commands.js'
import { bridgeNeeds, bridgeSchema, bridgeWarnings } from './config.js'
import { loadIdentity } from './identity.js'
import { createMqttSource } from './mqtt/source.js'
import { createPresence } from './presence.js'
import { createTimestamps } from './timestamps.js'

const SERVICE = 'mqtt-kafka-bridge'
const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }

runService(
  SERVICE,
  () => {
    const config = loadConfig(bridgeSchema, process.env, bridgeNeeds)
    checkApiAccess(config, 'API_HOST', config.API_HOST)
    return config
  },
  async (config, logger, lifecycle) => {
    for (const warning of bridgeWarnings(config)) logger.warn(warning)
    const { MQTT_TOPIC_PREFIX: prefix, KAFKA_TOPIC: topic } = config
    const broker = {
      url: config.MQTT_URL,
      ...given({
        username: config.MQTT_USERNAME,
        password: config.MQTT_PASSWORD,
        ca: config.MQTT_CA_FILE,
        cert: config.MQTT_CERT_FILE,
        key: config.MQTT_KEY_FILE,
      }),
    }
    const stallMs = config.MQTT_STALL_TIMEOUT_MS
    const identity = loadIdentity(config.DATA_DIR, config.MQTT_CLIENT_ID, logger)
    const kafka = createKafka(SERVICE, config, logger)
    const publisher = createPublisher(
      {
        topic,
        service: SERVICE,
        part: 'kafka',
        connections: createConnections(kafkaOptions(SERVICE, config, logger)),
        topics: createTopics(kafka, topicOptions(config), logger),
      },
      logger,
    )
    const presence = createPresence(
      {
        timeoutSeconds: config.DEVICE_OFFLINE_TIMEOUT,
        maxDevices: config.MAX_ONLINE_DEVICES,
        offlinePayload: config.PRESENCE_OFFLINE_PAYLOAD,
      },
      logger,
    )

    const source = createMqttSource(
      {
        broker,
        prefix,
        clientId: identity.clientId,
        canaryTopic: identity.canaryTopic,
        maxInFlight: config.MAX_IN_FLIGHT,
        maxPayloadBytes: config.MAX_PAYLOAD_BYTES,
        stallMs,
      },
      createAccept(
        {
          prefix,
          maxPayloadBytes: config.MAX_PAYLOAD_BYTES,
          binary: config.BINARY_PAYLOADS,
          timestamp: createTimestamps(config.TIMESTAMP_PRECISION),
          ...(config.PRESENCE_FROM.includes('data') ? { onReading: presence.seen } : {}),
        },
        publisher,
      ),
      logger,
    )
    const records = createCommandRecords()
    const control = createControlConnection(
      {
        broker,
        clientId: identity.controlClientId,
        canaryTopic: identity.controlCanaryTopic,
        prefix,
        timeoutMs: config.COMMAND_TIMEOUT_MS,
        stallMs,
      },
      presence.hello,
      records.reply,
      logger,
    )
    const api = await createHttpServer(
      {
        title: 'IoT ingestion platform',
        description: 'Who is online, and commands to devices.',
        version,
        host: config.API_HOST,
        ...apiOptions(config),
        open: [home(config.READER_URL)],
      },
      [
        deviceCalls(presence),
        commandCalls({ presence, records, send: control.send, defaultTtlMs: config.DEVICE_OFFLINE_TIMEOUT * 1000 }),
      ],
      { kafka: publisher.check, ingestion: source.check, control: control.check },
      logger,
    )

    lifecycle.onStop('control', control.stop)
    lifecycle.onStop('ingestion', source.stop)
    lifecycle.onStop('publisher', publisher.stop)
    lifecycle.onStop('intake', source.pause)
    lifecycle.onStop('api', api.stop)
    await api.app.listen({ host: config.API_HOST, port: config.API_PORT })
    logger.info({ addresses: api.app.addresses(), clientId: identity.clientId }, 'API listens')
    control.start()
    publisher.start()
    source.start()
  },
)
