// Writes the work of a batch to Redis in one go: two scripts for some devices at a time, every reply checked.
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

// KEYS: for each device last_state and guard. ARGV: for each device payload, timestamp and the position it has:
// timestamp:partition:offset, of fixed width, so that one that compares as greater is newer; what has another width
// is not of this form and is replaced.
// Answers how many last states were not set, then the number of each device refused and Redis's words.
const STATE = `
local result = {0}
local position = '^(%d+):(%d+):(%d+)$'
local function store(device, payload, timestamp, reached)
  local guard = KEYS[2 * device]
  local kept = redis.call('SET', guard, reached, 'GET')
  if kept and #kept == #reached and kept > reached then
    local at, of, before = string.match(kept, position)
    local now, partition, offset = string.match(reached, position)
    if (of == partition and offset < before) or (of ~= partition and now < at) then
      result[1] = result[1] + 1
      redis.call('SET', guard, kept)
      return
    end
  end
  redis.call('HSET', KEYS[2 * device - 1], 'payload', payload, 'timestamp', timestamp)
end
for device = 1, #KEYS / 2 do
  local ok, why = pcall(store, device, ARGV[3 * device - 2], ARGV[3 * device - 1], ARGV[3 * device])
  if not ok then
    result[#result + 1] = device
    result[#result + 1] = type(why) == 'table' and why.err or tostring(why)
  end
end
return result
`

// KEYS: the histories. ARGV: retention in s, then for each device the highest score to trim below, the channel, the
// number of its messages, and score and member of each. Answers 0, then as above.
const HISTORY = `
local retention, at, result = ARGV[1], 2, {0}
local function store(key, below, channel, from, to)
  for i = from, to, 1000 do redis.call('ZADD', key, unpack(ARGV, i, math.min(i + 999, to))) end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', below)
  redis.call('EXPIRE', key, retention)
  for i = from + 1, to, 2 do redis.call('PUBLISH', channel, ARGV[i]) end
end
for device = 1, #KEYS do
  local last = at + 2 + 2 * tonumber(ARGV[at + 2])
  local ok, why = pcall(store, KEYS[device], ARGV[at], ARGV[at + 1], at + 3, last)
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

const padded = (value: string | number, digits: number) => String(value).padStart(digits, '0')

/** What the state script compares: see there. */
const positionOf = (timestamp: number, partition: number, offset: string): string =>
  `${padded(timestamp, 16)}:${padded(partition, 6)}:${padded(offset, 16)}`

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
    const sent: Promise<unknown>[] = []
    // One write for all, as a pipeline has it. ioredis's own Pipeline makes a hidden class for each instance, by which
    // the garbage collector keeps every batch until its next full run.
    const { stream } = redis
    stream?.cork()
    const now = Math.floor(Date.now() / 1000)
    for (const call of calls) {
      const keys: string[] = []
      const histories: string[] = []
      const states: (string | number)[] = []
      const entries: (string | number)[] = [retentionSeconds]
      for (const { deviceId, messages, records } of call) {
        const { payload = '', timestamp = 0 } = messages.at(-1) ?? {}
        keys.push(lastStateKey(deviceId), guardKey(deviceId))
        states.push(payload, timestamp, positionOf(timestamp, partition, records.at(-1)?.offset ?? '0'))
        histories.push(historyKey(deviceId))
        let newest = 0
        for (const message of messages) newest = Math.max(newest, message.timestamp)
        // never later than the newest message's retention allows: a clock that jumped ahead empties no history
        entries.push(`(${Math.min(now, newest) - retentionSeconds}`, updatesChannel(deviceId), messages.length)
        for (const { timestamp, text } of messages) entries.push(timestamp, text)
      }
      sent.push(redis.call('EVALSHA', STATE_SHA, keys.length, ...keys, ...states))
      sent.push(redis.call('EVALSHA', HISTORY_SHA, histories.length, ...histories, ...entries))
    }
    stream?.uncork()
    const replies = await Promise.allSettled(sent)
    const refused = new Map<DeviceWork, string>()
    for (const [index, reply] of replies.entries()) {
      if (reply.status === 'rejected') {
        if (reply.reason.message.includes('NOSCRIPT')) loaded = false
        throw reply.reason
      }
      const [passedOver, ...failures] = reply.value as [number, ...(number | string)[]]
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
