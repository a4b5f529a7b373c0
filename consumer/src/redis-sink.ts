// Writes the work of a batch to Redis in one pipeline: two scripts for some devices at a time, every reply checked.
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
const CALL_MESSAGES = 100 // a call with so many is full: Redis serves nobody else while it runs, about 1 ms

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

// A script serves many devices: what a call costs, on both sides, is shared by them. Each has its own keys and fails
// alone. With one device a call both scripts would hold on Redis Cluster too, for their keys share a slot.

// KEYS: for each device last_state and guard. ARGV: partition, guard's life in s, then for each device payload,
// timestamp, offset, channel, number of messages and the messages to publish.
// Answers how many last states were not set, then the number of each device refused and Redis's words.
const STATE = `
local partition, life, at, result = ARGV[1], ARGV[2], 3, {0}
local function store(device, payload, timestamp, offset, channel, from, to)
  local guard = KEYS[2 * device]
  local kept = redis.call('SET', guard, partition .. ':' .. offset .. ':' .. timestamp, 'EX', life, 'GET')
  local stale = false
  if kept then
    local of, before, at = string.match(kept, '^(%d+):(%d+):(%d+)$')
    if of == partition then
      stale = tonumber(offset) < tonumber(before) and tonumber(timestamp) <= tonumber(at)
    else
      stale = tonumber(timestamp) < tonumber(at)
    end
  end
  if stale then
    result[1] = result[1] + 1
    redis.call('SET', guard, kept, 'EX', life)
  else
    redis.call('HSET', KEYS[2 * device - 1], 'payload', payload, 'timestamp', timestamp)
  end
  for i = from, to do redis.call('PUBLISH', channel, ARGV[i]) end
end
for device = 1, #KEYS / 2 do
  local last = at + 4 + tonumber(ARGV[at + 4])
  local ok, why = pcall(store, device, ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], at + 5, last)
  if not ok then
    result[#result + 1] = device
    result[#result + 1] = type(why) == 'table' and why.err or tostring(why)
  end
  at = last + 1
end
return result
`

// KEYS: the histories. ARGV: now, retention in s, then for each device its number of messages, and score and member of
// each. Answers 0, then as above.
// The cut-off is never later than the newest message's own timestamp minus the retention: a clock that jumped ahead
// empties no history.
const HISTORY = `
local now, retention, at, result = tonumber(ARGV[1]), ARGV[2], 3, {0}
local seconds, cut, below = tonumber(retention), nil, nil
local function store(key, from, to)
  local newest = 0
  for i = from, to, 2 do newest = math.max(newest, tonumber(ARGV[i])) end
  for i = from, to, 1000 do redis.call('ZADD', key, unpack(ARGV, i, math.min(i + 999, to))) end
  local cutoff = math.min(now, newest) - seconds
  if cutoff ~= cut then
    cut, below = cutoff, '(' .. string.format('%d', cutoff)
  end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', below)
  redis.call('EXPIRE', key, retention)
end
for device = 1, #KEYS do
  local last = at + 2 * tonumber(ARGV[at])
  local ok, why = pcall(store, KEYS[device], at + 1, last)
  if not ok then
    result[#result + 1] = device
    result[#result + 1] = type(why) == 'table' and why.err or tostring(why)
  end
  at = last + 1
end
return result
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

/** The devices of each call. */
function shares(devices: DeviceWork[]): DeviceWork[][] {
  const calls: DeviceWork[][] = []
  let messages = CALL_MESSAGES
  for (const work of devices) {
    if (messages >= CALL_MESSAGES) {
      calls.push([])
      messages = 0
    }
    calls.at(-1)?.push(work)
    messages += work.messages.length
  }
  return calls
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
    const calls = shares(devices)
    const pipeline = redis.pipeline()
    const now = Math.floor(Date.now() / 1000)
    for (const call of calls) {
      const keys: string[] = []
      const histories: string[] = []
      const updates: (string | number)[] = [partition, retentionSeconds]
      const entries: (string | number)[] = [now, retentionSeconds]
      for (const { deviceId, messages, records } of call) {
        const { payload = '', timestamp = 0 } = messages.at(-1) ?? {}
        keys.push(lastStateKey(deviceId), guardKey(deviceId))
        histories.push(historyKey(deviceId))
        updates.push(payload, timestamp, records.at(-1)?.offset ?? '0', updatesChannel(deviceId), messages.length)
        entries.push(messages.length)
        for (const { timestamp, text } of messages) {
          updates.push(text)
          entries.push(timestamp, text)
        }
      }
      pipeline.call('EVALSHA', STATE_SHA, keys.length, ...keys, ...updates)
      pipeline.call('EVALSHA', HISTORY_SHA, histories.length, ...histories, ...entries)
    }
    const replies = (await pipeline.exec()) ?? []
    if (replies.length !== calls.length * 2)
      throw new Error(`${replies.length} replies to ${calls.length * 2} commands`)
    const refused = new Map<DeviceWork, string>()
    for (const [index, [error, reply]] of replies.entries()) {
      if (error) {
        if (error.message.includes('NOSCRIPT')) loaded = false
        throw error
      }
      const [passedOver, ...failures] = reply as [number, ...(number | string)[]]
      stale.inc(passedOver)
      for (let at = 0; at < failures.length; at += 2) {
        const words = String(failures[at + 1])
        if (SERVER_STATE.test(words)) throw new Error(words)
        const work = calls[index >> 1]?.[Number(failures[at]) - 1]
        if (work && !refused.has(work)) refused.set(work, words)
      }
    }
    const storedAt = Date.now() / 1000
    for (const work of devices) {
      if (refused.has(work)) continue
      const newest = work.messages.at(-1)?.timestamp ?? 0
      newestStored = Math.max(newestStored, newest)
      delays.observe(Math.max(storedAt - newest, 0))
    }
    return [...refused].map(([work, error]) => ({ work, error }))
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
