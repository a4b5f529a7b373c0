// Writes the work of a batch to Redis in one pipeline: two single-key scripts for each device, every reply checked.
//
// The state script refuses to set last_state back: beside the hash it keeps the Kafka position of what it wrote, in a
// key of the same cluster slot. A writer that was frozen, or a pipeline that a frozen Redis finds in its socket
// later, has a lower offset in the same partition and no newer timestamp.
import { createHash } from 'node:crypto'
import { historyKey, lastStateKey, updatesChannel } from '@iot/shared/contract'
import { describe } from '@iot/shared/errors'
import { Redis, type RedisOptions } from 'ioredis'
import type { Logger } from 'pino'
import { Counter, Gauge, Histogram } from 'prom-client'
import type { DeviceWork } from './batch.js'
import { createDisk } from './redis-disk.js'

const COMMAND_TIMEOUT_MS = 5000

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
const stale = new Counter({ name: 'iot_stale_writes_total', help: 'last states not set, for a newer one stands there' })

// KEYS: last_state, guard. ARGV: payload, timestamp, partition, offset, guard's life in s, channel, messages to publish.
const STATE = `
local kept = redis.call('GET', KEYS[2])
local stale = false
if kept then
  local partition, offset, timestamp = string.match(kept, '^(%d+):(%d+):(%d+)$')
  if partition == ARGV[3] then
    stale = tonumber(ARGV[4]) < tonumber(offset) and tonumber(ARGV[2]) <= tonumber(timestamp)
  else
    stale = tonumber(ARGV[2]) < tonumber(timestamp)
  end
end
if not stale then
  redis.call('HSET', KEYS[1], 'payload', ARGV[1], 'timestamp', ARGV[2])
  redis.call('SET', KEYS[2], ARGV[3] .. ':' .. ARGV[4] .. ':' .. ARGV[2], 'EX', ARGV[5])
end
for i = 7, #ARGV do redis.call('PUBLISH', ARGV[6], ARGV[i]) end
return stale and 0 or 1
`

// KEYS: history. ARGV: now, retention, then score and member of each message.
// The cut-off is never later than the newest message's own timestamp minus the retention: a clock that jumped ahead
// empties no history.
const HISTORY = `
for i = 3, #ARGV, 2 do redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1]) end
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local cutoff = math.min(tonumber(ARGV[1]), tonumber(newest[2])) - tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%d', cutoff))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
`

const sha = (script: string) => createHash('sha1').update(script).digest('hex')
const STATE_SHA = sha(STATE)
const HISTORY_SHA = sha(HISTORY)

// What Redis says of itself rather than of the data: it passes, and the same batch is tried again.
const SERVER_STATE =
  /\b(OOM|READONLY|LOADING|MISCONF|NOSCRIPT|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|NOAUTH|NOPERM|WRONGPASS|UNBLOCKED)\b/

/** The guard's key, in the slot of the device's last_state key also where Redis Cluster hashes a tag of the id. */
function guardKey(deviceId: string): string {
  const key = lastStateKey(deviceId)
  return /\{[^}]+\}/.test(deviceId) ? `${key}:offset` : `{${key}}:offset`
}

export type RedisSink = {
  start(): void
  check(): string | null
  /**
   * Writes the batch. Answers the devices whose data Redis refused (a key of the wrong type), with its words.
   * @throws when Redis is away or in no state to write: the whole batch is to be written again
   */
  write(devices: DeviceWork[], partition: number): Promise<{ work: DeviceWork; error: string }[]>
  stop(): Promise<void>
}

export function createRedisSink(
  options: {
    url: string
    /** What the server is shown; `tls` holds the certificate to trust, PEM text. */
    access: Pick<RedisOptions, 'username' | 'password' | 'tls'>
    retentionSeconds: number
    durability: 'server' | 'fsync'
  },
  logger: Logger,
): RedisSink {
  const { url, retentionSeconds } = options
  let loaded = false
  let lastProblem = ''
  const connection = () => {
    const made = new Redis(url, {
      ...options.access,
      lazyConnect: true,
      maxRetriesPerRequest: 0,
      enableOfflineQueue: false,
      autoPipeliningIgnoredCommands: [],
      commandTimeout: COMMAND_TIMEOUT_MS,
      connectTimeout: 5000,
      keepAlive: 5000,
      retryStrategy: (times) => Math.min(times * 100, 2000),
    })
    made.on('error', (error) => {
      const problem = describe(error)
      if (problem !== lastProblem) logger.warn({ error: problem }, 'Redis not reached, trying on')
      lastProblem = problem
    })
    return made
  }
  const redis = connection()
  redis.on('ready', () => {
    lastProblem = ''
    loaded = false
    connects.inc()
    logger.info('Redis connected')
  })
  const disk = options.durability === 'fsync' ? createDisk(connection()) : null

  const load = async () => {
    await redis.script('LOAD', STATE)
    await redis.script('LOAD', HISTORY)
    loaded = true
  }

  const writeOnce = async (devices: DeviceWork[], partition: number) => {
    if (!loaded) await load()
    const pipeline = redis.pipeline()
    const now = Math.floor(Date.now() / 1000)
    for (const { deviceId, messages, records } of devices) {
      const newest = messages.at(-1)
      const offset = records.at(-1)?.offset
      if (!newest || offset === undefined) continue
      const history: (string | number)[] = []
      for (const { timestamp, text } of messages) history.push(timestamp, text)
      const channel = updatesChannel(deviceId)
      const texts = messages.map(({ text }) => text)
      pipeline.evalsha(
        STATE_SHA,
        2,
        lastStateKey(deviceId),
        guardKey(deviceId),
        newest.payload,
        newest.timestamp,
        partition,
        offset,
        retentionSeconds,
        channel,
        ...texts,
      )
      pipeline.evalsha(HISTORY_SHA, 1, historyKey(deviceId), now, retentionSeconds, ...history)
    }
    const replies = (await pipeline.exec()) ?? []
    if (replies.length !== devices.length * 2)
      throw new Error(`${replies.length} replies to ${devices.length * 2} commands`)
    const storedAt = Date.now() / 1000
    const refused: { work: DeviceWork; error: string }[] = []
    for (const [index, work] of devices.entries()) {
      const [state, history] = [replies[index * 2], replies[index * 2 + 1]]
      if (state?.[1] === 0) stale.inc()
      const error = state?.[0] ?? history?.[0]
      if (!error) {
        const newest = work.messages.at(-1)?.timestamp ?? 0
        newestStored = Math.max(newestStored, newest)
        delays.observe(Math.max(storedAt - newest, 0))
        continue
      }
      if (error.name !== 'ReplyError' || SERVER_STATE.test(error.message)) {
        if (error.message.includes('NOSCRIPT')) loaded = false
        throw error
      }
      refused.push({ work, error: error.message })
    }
    return refused
  }

  return {
    start() {
      redis.connect().catch(() => {}) // reported by 'error', repeated by retryStrategy
      disk?.start()
    },
    check: () => (redis.status === 'ready' ? (disk?.check() ?? null) : `Redis: ${lastProblem || redis.status}`),
    async write(devices, partition) {
      if (devices.length === 0) return []
      try {
        const onDisk = disk?.begin()
        const refused = await writeOnce(devices, partition)
        await onDisk?.()
        return refused
      } catch (error) {
        // what timed out is still queued on this connection: only a new one starts clean
        if (/timed out/i.test((error as Error).message) && redis.status === 'ready') redis.disconnect(true)
        throw error
      }
    },
    async stop() {
      disk?.stop()
      if (redis.status === 'ready') await redis.quit()
      else redis.disconnect()
    },
  }
}
