// Waits until what was written to Redis is on its disk (WAITAOF, Redis 7.2 and newer), over a connection of its own: a
// waiting connection takes no other command. One wait serves all that ask while it runs.
import type { Redis } from 'ioredis'

const KEY = 'iot-consumer:fsync' // WAITAOF waits for the writes of its own connection, and so for all before them
const MIN_VERSION = '7.2'
const WAIT_MS = 4000 // less than the connection's own timeout

export type RedisDisk = {
  start(): void
  /** Null when waiting for the disk is possible, else why it is not. */
  check(): string | null
  /**
   * Call it before a write; what it answers, called after the write, waits until that is on disk.
   * @throws when Redis was restarted in between, or does not do so: the write is to be made again
   */
  begin(): () => Promise<void>
  stop(): void
}

/** @param redis a connection that nobody else uses, not connected yet */
export function createDisk(redis: Redis): RedisDisk {
  let problem: string | null = `Redis: the connection for REDIS_DURABILITY=fsync is not there yet`
  let connection = 0 // counts: one that lasted from before the write until after the wait knows one Redis process only
  let running: Promise<void> | null = null
  let next: Promise<void> | null = null

  redis.on('ready', async () => {
    connection++
    try {
      const version = /redis_version:(\S+)/.exec(await redis.info('server'))?.[1] ?? '?'
      const isOn = /aof_enabled:1/.test(await redis.info('persistence'))
      if (version.localeCompare(MIN_VERSION, 'en', { numeric: true }) < 0) {
        problem = `REDIS_DURABILITY=fsync needs Redis ${MIN_VERSION} or newer, this is ${version}`
      } else problem = isOn ? null : 'REDIS_DURABILITY=fsync needs Redis with appendonly yes'
    } catch (error) {
      problem = `Redis: ${(error as Error).message}`
    }
  })
  redis.on('close', () => {
    connection++
  })

  const flush = async () => {
    const replies = await redis.pipeline().set(KEY, Date.now()).call('WAITAOF', 1, 0, WAIT_MS).exec()
    for (const [error] of replies ?? []) {
      if (!error) continue
      if (/timed out/i.test(error.message)) redis.disconnect(true) // it may still be waiting there
      throw error
    }
    const local = (replies?.[1]?.[1] as number[] | undefined)?.[0]
    if (local !== 1) throw new Error('Redis has not written its append-only file')
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
    start: () => void redis.connect().catch(() => {}),
    check: () => problem,
    begin() {
      if (problem) throw new Error(problem)
      const before = connection
      return async () => {
        await flushed()
        if (connection !== before) throw new Error('Redis was restarted before the batch was on its disk')
      }
    },
    stop: () => redis.disconnect(),
  }
}
