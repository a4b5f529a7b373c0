// Writes the work of a batch to Redis in one go: two scripts for some devices at a time, every reply checked. While
// there is nothing to write, a probe tells whether there could be.
import type { RedisAccess } from '@iot/shared/redis/connection'
import type { Logger } from 'pino'
import { Counter, Gauge, Histogram } from 'prom-client'
import { type DeviceWork, newestOf } from '../batch.js'
import type { Refusal, Sink } from '../storing.js'
import { createAcceptance, LostError } from './acceptance.js'
import { type CallOptions, planCalls } from './calls.js'
import { createWriter, translated } from './connection.js'
import { createDurability } from './durability.js'
import { PROBE_KEY } from './keys.js'
import { createKnown } from './known.js'
import { createMemory } from './memory.js'
import { expectReply, isFull, needsNewConnection, RefusedError } from './replies.js'
import { createRoom } from './room.js'
import { createRunner } from './runner.js'
import { NO_LIMITS, sparingScripts, storingScripts } from './scripts.js'

const TICK_MS = 1000
const PROBE_EXPIRY_S = 60

const connects = new Counter({ name: 'iot_redis_connects_total', help: 'connections made to Redis' })
let newestStored = 0 // Unix time in seconds
new Gauge({
  name: 'iot_newest_stored_age_seconds',
  help: 'age of the newest message stored by this process, 0 before the first',
  collect() {
    this.set(newestStored === 0 ? 0 : Math.max(Date.now() / 1000 - newestStored, 0))
  },
})
const delays = new Histogram({
  name: 'iot_end_to_end_delay_seconds',
  help: 'from the bridge receiving a message (whole seconds) to Redis having it',
  buckets: [1, 2, 3, 5, 10, 30, 60, 300, 3600],
})
const dropped = new Counter({
  name: 'iot_history_dropped_messages_total',
  help: 'messages that entered no history, for Redis was full (REDIS_WHEN_FULL=drop-history)',
})

export type RedisSinkOptions = {
  url: string
  access: RedisAccess
  durability: 'server' | 'fsync'
  whenFull: 'wait' | 'drop-history'
} & CallOptions

/** A Sink that writes to Redis what docs/contract.md says. */
export function createRedisSink(options: RedisSinkOptions, logger: Logger): Sink {
  const { url, access, retentionSeconds, whenFull, limits = NO_LIMITS } = options
  const scripts = { storing: storingScripts(limits), sparing: sparingScripts(limits) }
  const acceptance = createAcceptance(logger)
  const connection = () => createWriter(url, access, () => acceptance.check() !== null)
  const redis = connection()
  const runner = createRunner(redis)
  const durability = options.durability === 'fsync' ? createDurability(redis, connection(), () => void probe()) : null
  const room = createRoom(redis, retentionSeconds, logger)
  const memory = createMemory(redis, logger)
  const known = limits.knownDevices > 0 ? createKnown(redis, logger) : null
  let isSparing = false
  let ticker: NodeJS.Timeout | undefined

  redis.on('error', (error) => acceptance.connectionFailed(translated(error)))
  redis.on('close', () => acceptance.connectionFailed(new LostError('connection lost')))
  redis.on('ready', () => {
    connects.inc()
    memory.reconnected()
    if (!durability) void probe()
  })

  /** Runs what uses the connection, and gives the connection up when Redis's words say that another may do better. */
  const connected = async <T>(use: () => Promise<T>): Promise<T> => {
    if (redis.status !== 'ready') throw new LostError('not connected')
    const { stream } = redis
    try {
      return await use()
    } catch (error) {
      const failure = translated(error)
      const isRefused = failure instanceof RefusedError && needsNewConnection(failure.message)
      if (isRefused && redis.stream === stream) redis.disconnect(true)
      throw failure
    }
  }

  /** Stores what `use` writes, on disk too where that is asked for. */
  const stored = <T>(use: () => Promise<T>): Promise<T> =>
    connected(async () => {
      const onDisk = durability?.begin()
      const result = await use()
      await onDisk?.()
      return result
    })

  const probe = async () => {
    try {
      await stored(async () => expectReply(await redis.set(PROBE_KEY, 1, 'EX', PROBE_EXPIRY_S), 'OK'))
      acceptance.probed()
    } catch (error) {
      if (isFull(error)) room.refused([])
      if (isFull(error) && whenFull === 'drop-history') acceptance.probed()
      else acceptance.probeFailed(error as Error)
    }
  }

  /** Stores all of it; or, where Redis is full and that is what is wanted, all but the histories. */
  const store = async (devices: DeviceWork[], partition: number): Promise<Refusal[]> => {
    const isScarce = room.isScarce()
    const nowS = isScarce ? room.nowS() : Math.floor(Date.now() / 1000)
    const calls = planCalls(devices, partition, { ...options, isScarce }, nowS)
    try {
      if (whenFull === 'wait' || room.isDue()) return await stored(() => runner.run(calls, scripts.storing))
    } catch (error) {
      if (!isFull(error)) throw error
      room.refused(devices.map(({ deviceId }) => deviceId))
      if (whenFull === 'wait') throw error
    }
    if (!isSparing) logger.warn('Redis is full: last states and live updates go on, histories take nothing')
    isSparing = true
    const refused = await stored(() => runner.run(calls, scripts.sparing))
    for (const { messages } of devices) dropped.inc(messages.length)
    return refused
  }

  const tick = () => {
    const isProbing = acceptance.tick()
    if (isSparing && !room.isFull()) {
      isSparing = false
      logger.info('Redis has room again: histories take readings')
    }
    if (redis.status !== 'ready') return
    if (isProbing) void probe()
    memory.tick()
    known?.tick()
  }

  return {
    start() {
      acceptance.started()
      redis.connect().catch(() => {}) // heard by 'error', repeated by retryStrategy
      durability?.start()
      ticker = setInterval(tick, TICK_MS)
    },
    check: acceptance.check,
    async write(devices, partition) {
      if (devices.length === 0) return []
      acceptance.admit()
      try {
        const refused = await store(devices, partition)
        acceptance.wrote()
        observe(devices, refused)
        return refused
      } catch (error) {
        acceptance.writeFailed(error as Error)
        throw error
      }
    },
    async stop() {
      clearInterval(ticker)
      durability?.stop()
      redis.disconnect()
    },
  }
}

function observe(devices: DeviceWork[], refused: Refusal[]): void {
  const without = new Set(refused.map(({ work }) => work))
  const storedAt = Date.now() / 1000
  for (const work of devices) {
    if (without.has(work)) continue
    const { seconds } = newestOf(work).message
    newestStored = Math.max(newestStored, seconds)
    delays.observe(Math.max(storedAt - seconds, 0))
  }
}
