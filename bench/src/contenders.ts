// Who is measured: the platform itself, the peers where they are installed, and single programs as limits.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { kafkaLib, NODE_FLAGS, root } from '@iot/stack/prepare'
import type { Backlog } from './load.js'
import type { Program, Rig } from './rig.js'

const peers = join(root, '.local', 'peers')
const python = join(peers, 'python', 'bin', 'python')
const bento = join(peers, 'bento')
const limit = join(root, 'bench', 'dist', 'limit.js')

export type Target = { prefix: string; topic: string; clientId: string; group: string; apiPort?: number }

/** The names of the peers that are not installed; `bench/peers/install.sh` installs them. */
export const absentPeers = (): string[] => [
  ...(existsSync(python) ? [] : ['the Python stack']),
  ...(existsSync(bento) ? [] : ['Bento']),
]

export function bridge(rig: Rig, { prefix, topic, clientId, apiPort = 0 }: Target): Program {
  const env = {
    MQTT_URL: `mqtt://127.0.0.1:${rig.cluster.mosquitto.port}`,
    MQTT_TOPIC_PREFIX: prefix,
    MQTT_CLIENT_ID: clientId,
    KAFKA_BROKERS: rig.broker,
    KAFKA_TOPIC: topic,
    API_PORT: String(apiPort),
    API_RATE_LIMIT: '1000000',
    MAX_ONLINE_DEVICES: '1000000',
    DEVICE_OFFLINE_TIMEOUT: '3600',
  }
  return { name: 'platform', command: [process.execPath, ...NODE_FLAGS, join(root, 'bridge', 'dist', 'main.js')], env }
}

export function consumer(rig: Rig, { topic, group }: Target): Program {
  const env = {
    KAFKA_BROKERS: rig.broker,
    KAFKA_TOPIC: topic,
    KAFKA_GROUP_ID: group,
    REDIS_URL: `redis://127.0.0.1:${rig.cluster.redis.port}`,
    HEALTH_PORT: '0',
  }
  return {
    name: 'platform',
    command: [process.execPath, ...NODE_FLAGS, join(root, 'consumer', 'dist', 'main.js')],
    env,
  }
}

const common = (rig: Rig, { prefix, topic, clientId, group }: Target) => ({
  MQTT_PORT: String(rig.cluster.mosquitto.port),
  REDIS_PORT: String(rig.cluster.redis.port),
  KAFKA: rig.broker,
  PREFIX: prefix,
  TOPIC: topic,
  CLIENT_ID: clientId,
  GROUP: group,
})

const script = (name: string) => join(root, 'bench', 'peers', ...name.split('/'))

export function pythonStack(rig: Rig, target: Target, part: 'bridge' | 'consumer'): Program[] {
  if (!existsSync(python)) return []
  return [{ name: 'python', command: [python, script(`python/${part}.py`)], env: common(rig, target) }]
}

export function bentoPeer(rig: Rig, target: Target, part: 'ingest' | 'store'): Program[] {
  if (!existsSync(bento)) return []
  return [{ name: 'bento', command: [bento, '-c', script(`bento/${part}.yaml`)], env: common(rig, target) }]
}

export const mqttAlone = (rig: Rig, target: Target): Program => ({
  name: 'mqtt.js alone',
  command: [process.execPath, limit, 'mqtt'],
  env: common(rig, target),
})

export const kafkajsAlone = (rig: Rig, target: Target, backlog: Backlog): Program => ({
  name: 'kafkajs alone',
  command: [process.execPath, limit, 'kafka'],
  env: {
    ...common(rig, target),
    MESSAGES: String(backlog.messages),
    DEVICES: String(backlog.devices),
    PAYLOAD_BYTES: String(backlog.payloadBytes),
  },
})

/** Kafka's own performance test, with records of the same size. */
export const javaProducer = (rig: Rig, { topic }: Target, messages: number, recordBytes: number): Program => ({
  name: 'kafka-producer-perf-test',
  command: [
    ...['java', '-cp', `${kafkaLib}/*`, 'org.apache.kafka.tools.ProducerPerformance', '--topic', topic],
    ...['--num-records', String(messages), '--record-size', String(recordBytes), '--throughput', '-1'],
    ...['--producer-props', `bootstrap.servers=${rig.broker}`, 'acks=all'],
  ],
  env: {},
})
