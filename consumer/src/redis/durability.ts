// Waits until what was written to Redis is on its disk (WAITAOF, Redis 7.2 and newer), over a connection of its own: a
// waiting connection takes no other command. One wait serves all that ask while it runs.
import { describe } from '@iot/shared/errors'
import type { Redis } from 'ioredis'
import { LostError } from './acceptance.js'
import { translated } from './connection.js'
import { FSYNC_KEY } from './keys.js'
import { expectReply, RefusedError } from './replies.js'

const MIN_VERSION = '7.2'
const WAIT_MS = 4000 // less than the connection's own timeout

export type Durability = {
  start(): void
  /**
   * Call it before a write; what it returns, called after the write, waits until that is on disk.
   * @throws RefusedError when the server cannot do so, and only new connections may find one that can; LostError
   * when a connection is or was lost: in either case the write is to be repeated
   */
  begin(): () => Promise<void>
  stop(): void
}

/**
 * @param writing the connection that writes; whenever it closes, the waiting one is renewed too
 * @param waiting a connection that nobody else uses, not connected yet
 * @param onReady called when both are connected, so that a write can be tried
 */
export function createDurability(writing: Redis, waiting: Redis, onReady: () => void): Durability {
  const away = new LostError('the connection for REDIS_DURABILITY=fsync is not there yet')
  let problem: Error | null = away
  /** Bumped on every connect and close: unchanged over write and wait, one Redis process has answered both. */
  let connections = 0
  let writingRun: string | null = null // the run id of the process at the other end; null while it is not known
  let waitingRun: string | null = null
  let running: Promise<void> | null = null
  let next: Promise<void> | null = null

  const look = () => {
    if (writingRun !== null && waitingRun !== null) onReady()
  }
  writing.on('ready', async () => {
    writingRun = await runId(writing).catch(() => null)
    look()
  })
  writing.on('close', () => {
    writingRun = null
    waiting.disconnect(true) // it may still be waiting there, or the address may lead elsewhere by now
  })
  waiting.on('ready', async () => {
    connections++
    try {
      problem = await lacking(waiting)
      waitingRun = await runId(waiting)
    } catch (error) {
      problem = translated(error)
    }
    look()
  })
  waiting.on('close', () => {
    connections++
    waitingRun = null
    problem ??= away
  })
  waiting.on('error', (error) => {
    problem = new LostError(describe(error))
  })

  const flush = async () => {
    const replies = await waiting.pipeline().set(FSYNC_KEY, Date.now()).call('WAITAOF', 1, 0, WAIT_MS).exec()
    for (const [error] of replies ?? []) if (error) throw translated(error)
    expectReply(replies?.length, 2)
    const [local] = (replies?.[1]?.[1] ?? []) as unknown[]
    if (local === 0) throw new RefusedError('Redis has not written its append-only file')
    expectReply(local, 1)
  }

  /** A wait that begins after this call: one that runs already may have begun before the write. */
  const flushed = (): Promise<void> => {
    const start = () => {
      next = null
      running = flush().finally(() => {
        running = null
      })
      return running
    }
    if (!running) return start()
    next ??= running.then(start, start)
    return next
  }

  return {
    start: () => void waiting.connect().catch(() => {}),
    begin() {
      if (problem !== null) throw problem
      if (writingRun === null || waitingRun === null) throw away
      if (writingRun !== waitingRun) throw new RefusedError('the two connections lead to different servers')
      const before = connections
      return async () => {
        await flushed()
        if (connections !== before) throw new LostError('Redis was restarted before the batch was on its disk')
      }
    },
    stop: () => waiting.disconnect(),
  }
}

async function runId(connection: Redis): Promise<string> {
  const id = /^run_id:(\w+)/m.exec(await connection.info('server'))?.[1]
  if (id === undefined) throw new RefusedError('INFO names no run_id')
  return id
}

/** What the server lacks to say when something is on its disk; null when nothing. */
async function lacking(connection: Redis): Promise<RefusedError | null> {
  const version = /redis_version:(\S+)/.exec(await connection.info('server'))?.[1] ?? '?'
  if (version.localeCompare(MIN_VERSION, 'en', { numeric: true }) < 0)
    return new RefusedError(`REDIS_DURABILITY=fsync needs Redis ${MIN_VERSION} or newer, this is ${version}`)
  const persistence = await connection.info('persistence')
  if (/^loading:1/m.test(persistence)) return new RefusedError('LOADING Redis is loading the dataset in memory')
  if (/^aof_enabled:1/m.test(persistence)) return null
  return new RefusedError('REDIS_DURABILITY=fsync needs Redis with appendonly yes')
}
