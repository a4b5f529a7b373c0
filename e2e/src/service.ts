// A service as a process of a test: started on a port that the system chooses and the log names.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, openSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { NODE_FLAGS, root } from '@iot/stack/prepare'
import { eventually } from './eventually.js'

export type Service = {
  /** Where it listens: another port after every start that is given none. @throws while it does not run */
  readonly url: string
  /**
   * Starts it and waits until it lives; `env` goes on top of what it was created with. LOG_LEVEL must be info or below.
   * @throws when it ends before
   */
  start(env?: NodeJS.ProcessEnv): Promise<void>
  /** SIGTERM; returns the exit code. */
  stop(): Promise<number | null>
  kill(): Promise<void>
  /** Resolves when the process that was started last has ended, with its exit code; null after a signal. */
  ended(): Promise<number | null>
  /** Sends a signal that does not end it, such as SIGSTOP. */
  signal(signal: NodeJS.Signals): void
  pid(): number
  /** Memory in use, in MB; 0 when it does not run. */
  rssMb(): number
  ready(timeoutMs?: number): Promise<void>
  metrics(): Promise<string>
  log(): string
}

const PORT_VARIABLES = { bridge: 'API_PORT', consumer: 'HEALTH_PORT', reader: 'READER_PORT' }

/** @param dir where its log file goes */
export function createService(name: keyof typeof PORT_VARIABLES, dir: string, env: NodeJS.ProcessEnv): Service {
  const logFile = join(dir, `${name}-${randomBytes(4).toString('hex')}.log`)
  let child: ChildProcess | undefined
  let port: number | undefined
  let ended: Promise<number | null> = Promise.resolve(null)

  const end = async (signal: NodeJS.Signals) => {
    child?.kill(signal)
    return ended
  }
  const service: Service = {
    get url() {
      if (port === undefined) throw new Error(`the ${name} does not listen`)
      return `http://127.0.0.1:${port}`
    },
    async start(extra = {}) {
      const logged = statSync(logFile, { throwIfNoEntry: false })?.size ?? 0
      const log = openSync(logFile, 'a')
      const current = spawn(process.execPath, [...NODE_FLAGS, join(root, name, 'dist', 'main.js')], {
        env: { PATH: process.env.PATH, [PORT_VARIABLES[name]]: '0', ...env, ...extra },
        stdio: ['ignore', log, log],
      })
      closeSync(log)
      child = current
      let isRunning = true
      ended = new Promise((resolve) =>
        current.once('exit', (code) => {
          isRunning = false
          port = undefined
          resolve(code)
        }),
      )
      const lives = async () => {
        if (!isRunning) return 'ended'
        port ??= portIn(readFileSync(logFile).subarray(logged).toString())
        return (await fetch(`${service.url}/health/live`)).ok
      }
      const state = await eventually(lives, () => `${name} lives: ${service.log()}`)
      if (state === 'ended') throw new Error(`the ${name} ended while starting: ${service.log()}`)
    },
    stop: () => end('SIGTERM'),
    kill: async () => void (await end('SIGKILL')),
    ended: () => ended,
    signal: (signal) => void child?.kill(signal),
    pid: () => child?.pid ?? 0,
    rssMb() {
      try {
        const status = readFileSync(`/proc/${child?.pid}/status`, 'utf8')
        return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024)
      } catch {
        return 0
      }
    },
    async ready(timeoutMs) {
      const isReady = async () => (await fetch(`${service.url}/health/ready`)).ok
      await eventually(isReady, () => `${name} is ready: ${service.log()}`, timeoutMs)
    },
    metrics: async () => (await fetch(`${service.url}/metrics`)).text(),
    log: () => readFileSync(logFile, 'utf8'),
  }
  return service
}

/** The port that a log says its writer listens on. */
function portIn(log: string): number | undefined {
  const addresses = /"addresses":(\[[^\]]+\])/.exec(log)?.[1]
  if (!addresses) return undefined
  const [first] = JSON.parse(addresses) as { port: number }[]
  return first?.port
}
