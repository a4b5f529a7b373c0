// A server as a local process in a process group of its own: started, awaited, stopped, killed, started again with the
// same command. A start that fails is told by `start` alone, an end of its own accord by `onExit` alone.
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { isFree } from './ports.js'

const START_MS = 60_000
const STOP_MS = 20_000
const LOOK_MS = 100

export type Server = {
  name: string
  port: number
  /** Where its output goes; undefined where it runs in a container. */
  logFile?: string
  /** The current process; undefined where it runs in a container. */
  pid?: () => number | undefined
  /** Sends a signal, SIGKILL and SIGSTOP included. */
  signal(signal: NodeJS.Signals): Promise<void>
  /** SIGTERM, then SIGKILL when it takes over 20 s. */
  stop(): Promise<void>
  /**
   * Starts it after it ended, on the same port with the same data; resolves when it answers.
   * @throws when it ends before it answers, with code EADDRINUSE where one of its ports is taken; or when it does not
   * answer within a minute: then it is stopped
   */
  start(): Promise<void>
  /** Called when it ends by itself after it has answered. */
  onExit: (code: number | null) => void
}

export type ProcessOptions = {
  name: string
  /** The port that clients use; 0 where there is none. */
  port: number
  /** Further ports that it listens on. */
  furtherPorts?: number[]
  logFile: string
  command: string[]
  /** Whether it answers now. */
  isUp(): Promise<boolean>
  env?: NodeJS.ProcessEnv
  /** Gets each line of its standard output, beside the log file. */
  onLine?: ((line: string) => void) | undefined
}

/** Starts a program and waits until it answers. @throws as `start` of `Server` does */
export async function startProcess(options: ProcessOptions): Promise<Server> {
  const server = createProcess(options)
  await server.start()
  return server
}

/** A program that is not started yet. */
export function createProcess({ name, port, logFile, isUp, ...options }: ProcessOptions): Server {
  let state: 'ended' | 'starting' | 'up' | 'ending' = 'ended'
  let child: ChildProcess | undefined
  let ended: Promise<void> = Promise.resolve()

  const onEnd = (code: number | null) => {
    const isUnexpected = state === 'up'
    state = 'ended'
    if (isUnexpected) server.onExit(code)
  }
  const server: Server = {
    name,
    port,
    logFile,
    onExit: () => {},
    pid: () => child?.pid,
    async signal(signal) {
      if (state === 'up' && (signal === 'SIGKILL' || signal === 'SIGTERM')) state = 'ending'
      child?.kill(signal)
    },
    async stop() {
      if (state === 'ended') return
      void server.signal('SIGTERM')
      void server.signal('SIGCONT') // a frozen one must wake up to end
      const timer = setTimeout(() => void server.signal('SIGKILL'), STOP_MS)
      await ended
      clearTimeout(timer)
    },
    async start() {
      await ended
      state = 'starting'
      child = launch(logFile, options)
      ended = endOf(child).then(onEnd)
      try {
        await untilUp(isUp, () => state !== 'ended')
        if (state !== 'starting') throw new Error('ended while starting')
        state = 'up'
      } catch (error) {
        await server.stop()
        const isPortTaken = !(await areFree([port, ...(options.furtherPorts ?? [])]))
        const reason = isPortTaken ? 'found a port taken' : (error as Error).message
        throw Object.assign(new Error(`${name} ${reason}: see ${logFile}`), isPortTaken ? { code: 'EADDRINUSE' } : {})
      }
    },
  }
  return server
}

/** @throws when it does not answer within a minute, or is no longer alive */
export async function untilUp(isUp: () => Promise<boolean>, isAlive = () => true): Promise<void> {
  const deadline = Date.now() + START_MS
  while (!(await isUp())) {
    if (!isAlive()) throw new Error('ended while starting')
    if (Date.now() > deadline) throw new Error('does not answer')
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
  }
}

function launch(
  logFile: string,
  { command, env = process.env, onLine }: Pick<ProcessOptions, 'command' | 'env' | 'onLine'>,
) {
  const log = openSync(logFile, 'a') // appended to, so that it may be truncated while it is written
  const [program = '', ...args] = command
  const child = spawn(program, args, { stdio: ['ignore', onLine ? 'pipe' : log, log], detached: true, env })
  if (child.stdout && onLine) {
    const lines = createInterface({ input: child.stdout })
    lines.on('line', (line) => {
      writeSync(log, `${line}\n`)
      onLine(line)
    })
    lines.once('close', () => closeSync(log))
  } else closeSync(log)
  return child
}

/** Resolves when the process has ended, or could not be started, with its exit code; null after a signal. */
const endOf = (child: ChildProcess) =>
  new Promise<number | null>((resolve) => {
    child.once('exit', resolve)
    child.once('error', () => resolve(null))
  })

async function areFree(ports: number[]): Promise<boolean> {
  const free = await Promise.all(ports.filter((port) => port > 0).map((port) => isFree(port)))
  return free.every(Boolean)
}
