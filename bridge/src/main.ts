// The bridge: MQTT in, Kafka out, REST beside it. Wiring only.
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { given, loadConfig } from '@iot/shared/config'
import { createKafka, kafkaOptions } from '@iot/shared/kafka/client'
import { createConnections } from '@iot/shared/kafka/connections'
import { createTopics } from '@iot/shared/kafka/topics'
import { runService } from '@iot/shared/lifecycle'
import { createPublisher } from '@iot/shared/publisher'
import { createCommandRecords } from './api/command-records.js'
import { addCommandRoutes, describeInvalid } from './api/commands.js'
import { addDeviceRoutes } from './api/devices.js'
import { buildHttp, closeHttp } from './api/http.js'
import { createControlConnection } from './commands.js'
import { bridgeSchema, checkApiAccess } from './config.js'
import { deviceIdOf, ingest } from './ingest.js'
import { createMqttSource } from './mqtt-source.js'
import { createPresence } from './presence.js'

const SERVICE = 'mqtt-kafka-bridge'

runService(
  SERVICE,
  () => {
    const config = loadConfig(bridgeSchema, process.env)
    checkApiAccess(config)
    return config
  },
  async (config, logger, lifecycle) => {
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
    const clientId = config.MQTT_CLIENT_ID ?? keptClientId(config.DATA_DIR)
    const kafka = createKafka(SERVICE, config, logger)
    const topicOptions = {
      topic,
      partitions: config.KAFKA_TOPIC_PARTITIONS,
      replicationFactor: config.KAFKA_REPLICATION_FACTOR,
    }
    const publisher = createPublisher(
      {
        topic,
        service: SERVICE,
        part: 'kafka',
        connections: createConnections(kafkaOptions(SERVICE, config, logger)),
        topics: createTopics(kafka, topicOptions, logger),
      },
      logger,
    )
    const presence = createPresence(config.DEVICE_OFFLINE_TIMEOUT, config.MAX_ONLINE_DEVICES)

    const source = createMqttSource(
      { broker, clientId, topic: `${prefix}/+/data`, maxInFlight: config.MAX_IN_FLIGHT, stallMs },
      ({ topic: from, payload }, stored) => {
        const deviceId = deviceIdOf(from, prefix)
        const original = payload as Buffer
        const result = ingest(deviceId, original, config.MAX_PAYLOAD_BYTES, Math.floor(Date.now() / 1000))
        if (result.ok) publisher.publish({ deviceId, value: result.value, source: from, original }, stored)
        else publisher.deadLetter({ ...result, source: from, value: original }, stored)
      },
      logger,
    )
    const records = createCommandRecords()
    const control = createControlConnection(
      { broker, clientId: `${clientId}-control`, prefix, timeoutMs: config.COMMAND_TIMEOUT_MS, stallMs },
      presence.seen,
      records.reply,
      logger,
    )
    const api = await buildHttp(
      {
        title: 'IoT ingestion platform',
        description: 'Who is online, and commands to devices.',
        keys: config.API_KEY ?? [],
        callsPerSecond: config.API_RATE_LIMIT,
        trustProxy: config.API_TRUST_PROXY,
        hosts: [config.API_HOST, ...(config.API_ALLOWED_HOSTS ?? [])],
        describeInvalid,
      },
      (app) => {
        addDeviceRoutes(app, presence)
        addCommandRoutes(app, presence, records, control.send, config.DEVICE_OFFLINE_TIMEOUT * 1000)
      },
      { kafka: publisher.check, ingestion: source.check, control: control.check },
      logger,
    )

    lifecycle.onStop('control', control.stop)
    lifecycle.onStop('ingestion', source.stop)
    lifecycle.onStop('publisher', publisher.stop)
    lifecycle.onStop('intake', source.pause)
    lifecycle.onStop('api', (withinMs) => {
      records.stop()
      return closeHttp(api, withinMs)
    })
    await api.listen({ host: config.API_HOST, port: config.API_PORT })
    logger.info({ addresses: api.addresses(), clientId }, 'API listens')
    control.start()
    publisher.start()
    source.start()
  },
)

/** The id of the persistent session, made once and kept in `dir`: stable over restarts, unique on the broker. */
function keptClientId(dir: string): string {
  const file = join(dir, 'mqtt-client-id')
  try {
    const kept = readFileSync(file, 'utf8').trim()
    if (kept) return kept
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  const made = `iot-bridge-${randomBytes(8).toString('hex')}`
  mkdirSync(dir, { recursive: true })
  writeFileSync(file, `${made}\n`)
  return made
}
