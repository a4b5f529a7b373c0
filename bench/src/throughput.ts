// How many messages a second: ingestion (MQTT to Kafka) and storing (Kafka to Redis), each from a backlog.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import * as contenders from './contenders.js'
import { type Backlog, createSession, dropSession, fillKafka, fillMqtt, record } from './load.js'
import { measure, type Program, type Rig, type Throughput } from './rig.js'

/** One measured run of one contender. */
export type Run = Throughput & { contender: string }

const target = (rig: Rig, topic: string): contenders.Target => ({
  prefix: rig.name('devices'),
  topic,
  clientId: rig.name('bridge'),
  group: rig.name('group'),
})

/** Starts it, measures until `total` messages are counted, stops it. */
async function watch(
  rig: Rig,
  program: Program,
  servers: (keyof Rig['servers'])[],
  counted: () => Promise<number>,
  total: number,
): Promise<Run> {
  const running = rig.start(program)
  try {
    const pids = { [program.name]: running.pid }
    for (const name of servers) pids[name] = rig.servers[name] ?? 0
    return { contender: program.name, ...(await measure(pids, counted, total)) }
  } finally {
    await running.stop()
  }
}

/** A backlog in a persistent session, through one contender, into a topic of its own. */
async function drainMqtt(rig: Rig, backlog: Backlog, choose: (target: contenders.Target) => Program | undefined) {
  const topic = await rig.createTopic()
  const aim = target(rig, topic)
  const program = choose(aim)
  if (!program) return []
  const port = rig.cluster.mosquitto.port
  await createSession(port, aim.clientId, aim.prefix)
  await fillMqtt(port, aim.prefix, backlog)
  try {
    return [await watch(rig, program, ['mosquitto', 'kafka'], () => rig.inKafka(topic), backlog.messages)]
  } finally {
    await dropSession(port, aim.clientId)
    await rig.deleteTopic(topic)
  }
}

/** The platform's bridge alone, for the growth table. */
export const ingestOnce = (rig: Rig, backlog: Backlog) => drainMqtt(rig, backlog, (aim) => contenders.bridge(rig, aim))

/** Every contender and limit of ingestion, once. */
export async function ingest(rig: Rig, backlog: Backlog): Promise<Run[]> {
  const messages = backlog.messages
  const recordBytes = record(messages, backlog, 1e9).value.length
  return [
    ...(await ingestOnce(rig, backlog)),
    ...(await drainMqtt(rig, backlog, (aim) => contenders.pythonStack(rig, aim, 'bridge')[0])),
    ...(await drainMqtt(rig, backlog, (aim) => contenders.bentoPeer(rig, aim, 'ingest')[0])),
    await mqttAlone(rig, backlog),
    await produceAlone(rig, messages, (aim) => contenders.kafkajsAlone(rig, aim, backlog)),
    await produceAlone(rig, messages, (aim) => contenders.javaProducer(rig, aim, messages, recordBytes)),
  ]
}

async function mqttAlone(rig: Rig, backlog: Backlog): Promise<Run> {
  const aim = target(rig, '')
  const port = rig.cluster.mosquitto.port
  await createSession(port, aim.clientId, aim.prefix)
  await fillMqtt(port, aim.prefix, backlog)
  const listener = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`)
  let count = 0
  listener.on('message', (_topic, payload) => {
    count = Number(payload)
  })
  await listener.subscribeAsync(`${aim.prefix}/counted`)
  try {
    return await watch(rig, contenders.mqttAlone(rig, aim), ['mosquitto'], async () => count, backlog.messages)
  } finally {
    await listener.endAsync()
    await dropSession(port, aim.clientId)
  }
}

async function produceAlone(rig: Rig, messages: number, choose: (aim: contenders.Target) => Program): Promise<Run> {
  const topic = await rig.createTopic()
  try {
    return await watch(rig, choose(target(rig, topic)), ['kafka'], () => rig.inKafka(topic), messages)
  } finally {
    await rig.deleteTopic(topic)
  }
}

/** The platform's consumer alone, for the growth table. */
export async function storeOnce(rig: Rig, topic: string, messages: number): Promise<Run> {
  await rig.forgetRedis()
  return watch(rig, contenders.consumer(rig, target(rig, topic)), ['kafka', 'redis'], rig.updates, messages)
}

/** Every contender and limit of storing, once, on a topic that holds the backlog. */
export async function store(rig: Rig, topic: string, backlog: Backlog): Promise<Run[]> {
  const { messages } = backlog
  const runs = [await storeOnce(rig, topic, messages)]
  const peers = [
    ...contenders.pythonStack(rig, target(rig, topic), 'consumer'),
    ...contenders.bentoPeer(rig, target(rig, topic), 'store'),
    pipe(rig, backlog),
  ]
  for (const program of peers) {
    await rig.forgetRedis()
    runs.push(await watch(rig, program, ['kafka', 'redis'], rig.updates, messages))
  }
  rmSync(join(pipeDir, 'commands'))
  return runs
}

/** How it grows: with the number of devices, and with the size of a payload. */
export async function growth(rig: Rig, share: number) {
  const measured = async (devices: number, payloadBytes: number, messages: number) => {
    const backlog = { messages: messages * share, devices, payloadBytes }
    const [ingested] = await ingestOnce(rig, backlog)
    const stored = await withBacklog(rig, backlog, (topic) => storeOnce(rig, topic, backlog.messages))
    return {
      devices,
      payloadBytes,
      'ingest msg/s': ingested?.perSecond,
      'bridge CPU s per million': ingested?.cpuSPerMillion.platform,
      'bridge MB': ingested?.peakMb.platform,
      'store msg/s': stored.perSecond,
      'consumer CPU s per million': stored.cpuSPerMillion.platform,
      'redis CPU s per million': stored.cpuSPerMillion.redis,
      'consumer MB': stored.peakMb.platform,
    }
  }
  const rows: Awaited<ReturnType<typeof measured>>[] = []
  for (const devices of [1000, 10_000, 100_000]) rows.push(await measured(devices, 75, 300_000))
  for (const bytes of [50, 1000, 10_000]) rows.push(await measured(1000, bytes, bytes > 5000 ? 30_000 : 200_000))
  return rows
}

export async function withBacklog<T>(rig: Rig, backlog: Backlog, use: (topic: string) => Promise<T>): Promise<T> {
  const topic = await rig.createTopic()
  try {
    await fillKafka(rig.kafka, topic, backlog)
    return await use(topic)
  } finally {
    await rig.deleteTopic(topic)
  }
}

const pipeDir = mkdtempSync(join(tmpdir(), 'iot-bench-'))

/** The five plain commands of each message, one by one, through `redis-cli --pipe`. */
function pipe(rig: Rig, backlog: Backlog): Program {
  const file = join(pipeDir, 'commands')
  const timestamp = Math.floor(Date.now() / 1000)
  const lines: string[] = []
  const command = (...args: (string | number)[]) => {
    lines.push(`*${args.length}\r\n`)
    for (const arg of args) lines.push(`$${Buffer.byteLength(String(arg))}\r\n${arg}\r\n`)
  }
  writeFileSync(file, '')
  for (let seq = 0; seq < backlog.messages; seq++) {
    const { key, value } = record(seq, backlog, timestamp)
    const payload = value.slice(value.indexOf('"payload":') + 10, value.lastIndexOf(',"timestamp"'))
    command('HSET', `device:last_state:${key}`, 'payload', payload, 'timestamp', timestamp)
    command('ZADD', `device:history:${key}`, timestamp, value)
    command('ZREMRANGEBYSCORE', `device:history:${key}`, '-inf', `(${timestamp - 18_000}`)
    command('EXPIRE', `device:history:${key}`, 18_000)
    command('PUBLISH', `device-updates:${key}`, value)
    if (seq % 1000 === 999 || seq === backlog.messages - 1) {
      writeFileSync(file, lines.join(''), { flag: 'a' })
      lines.length = 0
    }
  }
  const redisCli = `exec redis-cli -p ${rig.cluster.redis.port} --pipe < ${file}`
  return { name: 'redis-cli --pipe', command: ['sh', '-c', redisCli], env: {} }
}
