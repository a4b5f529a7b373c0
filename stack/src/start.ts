// `npm start`: the three servers, the services and a few simulated devices on loopback, until Ctrl-C.
// Started in the order of need, stopped in the order of the data: devices first, Kafka last.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import pinoPretty from 'pino-pretty'
import { brokerCount, startKafkaNodes } from './kafka.js'
import { limitLog } from './log-limit.js'
import { isFree } from './ports.js'
import { NODE_FLAGS, prepare, root } from './prepare.js'
import { type Server, startProcess } from './process.js'
import { restartOnChange } from './restart.js'
import { startMosquitto, startRedis } from './servers.js'
import { supervise } from './supervise.js'

const LOG_BYTES = 20_000_000 // of each log file; as much again is kept beside it
const LOG_LOOK_MS = 10_000
const say = (line: string) => void process.stdout.write(`${line}\n`)

const port = (variable: string, fallback: number, what: string) => {
  const value = Number(process.env[variable] || fallback)
  if (Number.isInteger(value) && value > 0 && value < 65_536) return { variable, value, what }
  return end(1, `${variable} must be a port from 1 to 65535`)
}
const ports = {
  api: port('API_PORT', 8000, 'the REST API'),
  reader: port('READER_PORT', 8002, 'the reader'),
  health: port('HEALTH_PORT', 8001, "the consumer's health"),
  mqtt: port('MQTT_PORT', 1883, 'MQTT'),
  kafka: port('KAFKA_PORT', 19092, 'Kafka'),
  redis: port('REDIS_PORT', 6379, 'Redis'),
}
const kafkaPorts = Array.from({ length: brokers() }, (_, index) => ports.kafka.value + index)
// as in docker-compose.yml, which says why
const redisMemory = [
  ...['--maxmemory', process.env.REDIS_MAXMEMORY || '1gb', '--maxmemory-policy', 'noeviction'],
  ...['--zset-max-listpack-entries', '320', '--zset-max-listpack-value', '512', '--hash-max-listpack-value', '512'],
]
const simulated = process.env.SIMULATED_DEVICES || '3'
if (!/^\d+$/.test(simulated)) end(1, 'SIMULATED_DEVICES must be a whole number, 0 for none')

// the services' logs, readable on a terminal; the JSON lines are in the log files
const pretty = pinoPretty.prettyFactory({
  colorize: true,
  ignore: 'pid,hostname,addresses',
  singleLine: true,
  translateTime: 'HH:MM:ss',
})
const show = process.stdout.isTTY ? (line: string) => void process.stdout.write(pretty(line)) : undefined

const running: Server[] = []
let stopping = false
process.on('SIGINT', () => void stop(0))
process.on('SIGTERM', () => void stop(0))
setInterval(() => {
  for (const { logFile } of running) if (logFile) limitLog(logFile, LOG_BYTES)
}, LOG_LOOK_MS)

try {
  const { kafka, ...others } = ports
  const wanted = [...Object.values(others), ...kafkaPorts.map((value) => ({ ...kafka, value }))]
  for (const { variable, value, what } of wanted) {
    if (!(await isFree(value))) end(1, `port ${value} (${what}) is taken: set ${variable} to another one`)
  }
  prepare(say)
  await startAll()
} catch (error) {
  say((error as Error).message)
  await stop(1)
}

async function startAll() {
  const data = join(root, '.local', 'data')
  const logs = join(root, '.local', 'log')
  mkdirSync(logs, { recursive: true })
  say('starting Kafka, Redis and Mosquitto ...')
  const results = await Promise.allSettled([
    startKafkaNodes(kafkaPorts, data).then((nodes) => Promise.all(nodes.map(keep))),
    startRedis(ports.redis.value, data, redisMemory).then(keep),
    startMosquitto(ports.mqtt.value, data).then(keep),
  ])
  for (const result of results) if (result.status === 'rejected') throw result.reason
  say('starting bridge, consumer and reader ...')
  const api = `http://127.0.0.1:${ports.api.value}`
  const reader = `http://127.0.0.1:${ports.reader.value}`
  const broker = `mqtt://127.0.0.1:${ports.mqtt.value}`
  const env = {
    ...process.env,
    KAFKA_BROKERS: kafkaPorts.map((at) => `127.0.0.1:${at}`).join(','),
    REDIS_URL: `redis://127.0.0.1:${ports.redis.value}`,
    MQTT_URL: broker,
    API_PORT: String(ports.api.value),
    READER_PORT: String(ports.reader.value),
    READER_URL: reader,
    BRIDGE_URLS: api,
    CONSUMER_URLS: `http://127.0.0.1:${ports.health.value}`,
    HEALTH_PORT: String(ports.health.value),
    DATA_DIR: join(data, 'bridge'),
  }
  const node = (name: string, at: number, args: string[], isUp: () => Promise<boolean>, onLine?: typeof show) =>
    startProcess({
      name,
      port: at,
      logFile: join(logs, `${name}.log`),
      command: [process.execPath, ...NODE_FLAGS, join(root, name, 'dist', 'main.js'), ...args],
      isUp,
      env,
      onLine,
    }).then(async (server) => {
      await keep(server)
      const folders = ['shared', name].map((room) => join(root, room, 'dist'))
      if (process.argv.includes('--restart-on-change')) restartOnChange(server, folders, say)
    })
  await Promise.all([
    node('bridge', ports.api.value, [], () => isReady(ports.api.value), show),
    node('consumer', ports.health.value, [], () => isReady(ports.health.value), show),
    node('reader', ports.reader.value, [], () => isReady(ports.reader.value), show),
  ])
  if (Number(simulated) > 0) {
    const args = ['--devices', simulated, '--interval', '2s', '--url', broker, '--quiet']
    await node('simulator', 0, args, async () => true)
  }
  say(`up: ${reader}  bridge ${api}  MQTT ${broker}  Kafka ${env.KAFKA_BROKERS}  Redis ${env.REDIS_URL}  logs .local/log  (Ctrl-C stops everything)

  curl ${reader}/devices
  curl -H 'content-type: application/json' -d '{"command":"set_interval","interval":"500ms"}' ${reader}/devices/sim-1/command
  redis-cli -p ${ports.redis.value} hgetall device:last_state:sim-1
  mosquitto_pub -p ${ports.mqtt.value} -q 1 -t devices/my-sensor/data -m '{"temperature":21.5}'
`)
}

/** Remembers what runs, and has it started again when it dies. */
async function keep(server: Server) {
  running.push(server)
  supervise(server, { say, isStopping: () => stopping })
  if (stopping) await server.stop()
}

async function isReady(at: number): Promise<boolean> {
  try {
    return (await fetch(`http://127.0.0.1:${at}/health/ready`)).ok
  } catch {
    return false
  }
}

async function stop(code: number) {
  if (stopping) {
    for (const server of running) void server.signal('SIGKILL')
    process.exit(1)
  }
  stopping = true
  if (running.length > 0) say('stopping ...')
  const order = ['simulator', 'reader', 'bridge', 'consumer', 'Mosquitto', 'Redis', 'Kafka']
  for (const kind of order) {
    const servers = running.filter(({ name }) => name.split(' ')[0] === kind) // Kafka may be `Kafka 1` and others
    await Promise.all(servers.map((server) => server.stop()))
  }
  process.exit(code)
}

function brokers(): number {
  try {
    return brokerCount(process.env)
  } catch (error) {
    return end(1, (error as Error).message)
  }
}

function end(code: number, line: string): never {
  say(line)
  process.exit(code)
}
