// Redis and Mosquitto as local processes on loopback, and what every server process has in common: started in a process
// group of its own, awaited, stopped, killed, restarted on the same port with the same data.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { connect as connectTls } from 'node:tls'

const START_MS = 60_000
const STOP_MS = 20_000

export type Server = {
  name: string
  port: number
  /** The process of now; undefined where it runs in a container. */
  pid?: () => number | undefined
  /** Sends a signal, SIGKILL and SIGSTOP included. */
  signal(signal: NodeJS.Signals): Promise<void>
  /** SIGTERM, then SIGKILL when it takes over 20 s. */
  stop(): Promise<void>
  /** Starts it again after it ended, on the same port with the same data; resolves when it answers. */
  start(): Promise<void>
  /** Called when it ends without having been told to. */
  onExit: (code: number | null) => void
}

/**
 * Starts a program and waits until it answers.
 * @param isUp whether it answers now
 * @param onLine gets each line of its standard output, beside the log file
 */
export async function startProcess(
  name: string,
  port: number,
  logFile: string,
  command: string[],
  isUp: () => Promise<boolean>,
  env: NodeJS.ProcessEnv = process.env,
  onLine?: (line: string) => void,
): Promise<Server> {
  let child: ChildProcess
  let ended: Promise<void> = Promise.resolve()
  let told = false
  const server: Server = {
    name,
    port,
    onExit: () => {},
    pid: () => child.pid,
    async signal(signal) {
      told ||= signal === 'SIGKILL' || signal === 'SIGTERM'
      child.kill(signal)
    },
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return
      void server.signal('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
      await ended
      clearTimeout(timer)
    },
    async start() {
      await ended
      told = false
      const log = openSync(logFile, 'a')
      const [program = '', ...args] = command
      child = spawn(program, args, { stdio: ['ignore', onLine ? 'pipe' : log, log], detached: true, env })
      if (child.stdout && onLine) {
        createInterface({ input: child.stdout }).on('line', (line) => {
          writeSync(log, `${line}\n`)
          onLine(line)
        })
      }
      let alive = true
      ended = new Promise((resolve) => {
        const end = (code: number | null) => {
          alive = false
          resolve()
          if (!told) server.onExit(code)
        }
        child.once('exit', end)
        child.once('error', () => end(null))
      })
      try {
        await untilUp(isUp, () => alive)
      } catch (error) {
        await server.stop()
        throw new Error(`${name} ${(error as Error).message}: see ${logFile}`)
      }
    },
  }
  await server.start()
  return server
}

/** @throws when it does not answer within a minute, or is no longer alive */
export async function untilUp(isUp: () => Promise<boolean>, isAlive = () => true): Promise<void> {
  const deadline = Date.now() + START_MS
  while (!(await isUp())) {
    if (!isAlive()) throw new Error('ended while starting')
    if (Date.now() > deadline) throw new Error('does not answer')
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

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
  const args = [
    '--port',
    String(port),
    '--bind',
    '127.0.0.1',
    '--dir',
    dir,
    '--appendonly',
    'yes',
    '--save',
    '',
    ...options,
  ]
  return startProcess(
    'Redis',
    port,
    join(dir, 'redis.log'),
    [process.env.REDIS_SERVER || 'redis-server', ...args],
    () => isUp(port),
  )
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
  return startProcess('Mosquitto', port, join(dir, 'mosquitto.log'), ['mosquitto', '-c', config], () => isUp(port))
}
