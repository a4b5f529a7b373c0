// Start and stop of a service: closers run last-opened-first, each within half of what is left of one deadline.
// A first signal stops cleanly and exits 0, a second exits at once.
import type { Logger } from 'pino'
import { pino } from 'pino'
import { ConfigError } from './config.js'

export type Lifecycle = {
  /**
   * Registers a closer; call it before the part is started, so that a half-started part is closed too.
   * @param close gets the milliseconds that it may take
   */
  onStop(name: string, close: (withinMs: number) => Promise<unknown> | unknown): void
  /** Ends the process with 1 after a clean stop: for what cannot heal while the process lives. */
  fail(error: unknown): void
}

/** Runs a service to its end. `start` gets the lifecycle to register closers with; its failure ends the process. */
export function runService<C extends { LOG_LEVEL: string; SHUTDOWN_TIMEOUT_MS: number }>(
  name: string,
  load: () => C,
  start: (config: C, logger: Logger, lifecycle: Lifecycle) => Promise<void>,
): void {
  let config: C
  try {
    config = load()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const line of error.lines) process.stderr.write(`${name}: ${line}\n`)
    process.exit(1)
  }
  const logger = pino({ name, level: config.LOG_LEVEL })
  const closers: { name: string; close: (withinMs: number) => unknown }[] = []
  let stopping = false

  const stop = async (exitCode: number) => {
    if (stopping) process.exit(1)
    stopping = true
    const deadline = performance.now() + config.SHUTDOWN_TIMEOUT_MS
    let failed = exitCode
    for (const closer of closers.reverse()) {
      const withinMs = Math.max((deadline - performance.now()) / 2, 50)
      try {
        await withDeadline(Promise.resolve(closer.close(withinMs)), withinMs)
        logger.debug({ part: closer.name }, 'stopped')
      } catch (err) {
        failed = 1
        logger.error({ err, part: closer.name }, 'did not stop cleanly')
      }
    }
    logger.info({ exitCode: failed }, 'stopped')
    process.exit(failed)
  }
  const fail = (err: unknown) => {
    logger.fatal({ err }, 'cannot go on')
    if (!stopping) void stop(1)
  }
  process.on('SIGTERM', () => void stop(0))
  process.on('SIGINT', () => void stop(0))
  process.on('uncaughtException', fail)
  process.on('unhandledRejection', fail)
  logger.info({ node: process.version }, 'starting')
  start(config, logger, { onStop: (part, close) => void closers.push({ name: part, close }), fail }).catch(fail)
}

/** Rejects when `promise` takes longer than `timeoutMs`, with `what` in its message. */
export async function withDeadline<T>(promise: Promise<T>, timeoutMs: number, what = 'not done'): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} within ${timeoutMs} ms`)), timeoutMs)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/**
 * Waits for what is in flight, but not for all of a closer's time: what a server that is away does
 * not take stays where it came from.
 * @returns whether it was all done
 */
export async function drained(inFlight: Promise<unknown>, withinMs: number): Promise<boolean> {
  return withDeadline(inFlight, withinMs * 0.6).then(
    () => true,
    () => false,
  )
}
