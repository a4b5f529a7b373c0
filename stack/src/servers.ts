// Redis and Mosquitto as local processes, and how each kind of server is asked whether it answers.
import { mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { type Server, startProcess, untilUp } from './process.js'

export { type Server, untilUp }

/** Whether Kafka serves requests: ApiVersions v0, correlation id 7, no client id. */
export const isKafkaUp = (port: number): Promise<boolean> =>
  answers(
    port,
    Buffer.from([0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 255, 255]),
    (reply) => reply.length >= 8 && reply.readInt32BE(4) === 7,
  )

export const isRedisUp = (port: number): Promise<boolean> =>
  answers(port, 'PING\r\n', (reply) => reply.toString().startsWith('+PONG'))

/** Whether Mosquitto takes connections: CONNECT of MQTT 3.1.1, clean, no client id; a CONNACK begins with 0x20. */
export const isMosquittoUp = (port: number): Promise<boolean> =>
  answers(port, Buffer.from([0x10, 12, 0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 2, 0, 10, 0, 0]), (reply) => reply[0] === 0x20)

/** Whether a server on `port` of loopback does its half of a TLS handshake; whose certificate it has does not matter. */
export function isTlsUp(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const end = (up: boolean) => {
      socket.destroy()
      resolve(up)
    }
    const options = { host: '127.0.0.1', port, rejectUnauthorized: false, timeout: 1000 }
    const socket = connectTls(options, () => end(true))
    socket.once('error', () => end(false))
    socket.once('timeout', () => end(false))
    socket.once('close', () => end(false))
  })
}

/** Whether `port` on loopback answers `send` with what `isExpected` accepts. */
function answers(port: number, send: string | Buffer, isExpected: (reply: Buffer) => boolean): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port })
    const end = (up: boolean) => {
      socket.destroy()
      resolve(up)
    }
    socket.setTimeout(1000, () => end(false))
    socket.once('error', () => end(false))
    socket.once('end', () => end(false))
    socket.once('connect', () => socket.write(send))
    socket.once('data', (data) => end(isExpected(data)))
  })
}

/** Redis with its append-only file on; `REDIS_SERVER` names another program, such as valkey-server. @param options further options, as on its command line */
export function startRedis(port: number, dataDir: string, options: string[] = [], isUp = isRedisUp): Promise<Server> {
  const dir = join(dataDir, 'redis')
  mkdirSync(dir, { recursive: true })
  return startProcess({
    name: 'Redis',
    port,
    logFile: join(dir, 'redis.log'),
    command: [
      process.env.REDIS_SERVER || 'redis-server',
      ...['--port', String(port), '--bind', '127.0.0.1', '--dir', dir, '--appendonly', 'yes', '--save', ''],
      ...options,
    ],
    isUp: () => isUp(port),
  })
}

/** Mosquitto with persistent sessions. @param settings further lines of its configuration, about the listener first */
export function startMosquitto(
  port: number,
  dataDir: string,
  settings: string[] = [],
  isUp = isMosquittoUp,
): Promise<Server> {
  const dir = join(dataDir, 'mosquitto')
  mkdirSync(dir, { recursive: true })
  const config = join(dir, 'mosquitto.conf')
  const lines = [
    `listener ${port} 127.0.0.1`,
    'allow_anonymous true',
    'persistence true',
    `persistence_location ${dir}/`,
    'autosave_interval 5',
    // as in stack/mosquitto/mosquitto.conf, which says why
    'max_queued_messages 600000',
    'max_queued_bytes 100000000',
    'memory_limit 450000000',
    'max_packet_size 4194304',
    'max_inflight_messages 0',
    ...(process.getuid?.() === 0 ? ['user root'] : []),
    ...settings,
  ]
  writeFileSync(config, `${lines.join('\n')}\n`)
  const command = ['mosquitto', '-c', config]
  return startProcess({ name: 'Mosquitto', port, logFile: join(dir, 'mosquitto.log'), command, isUp: () => isUp(port) })
}
