// Writes the work of a batch to Redis in one go: two scripts for some devices at a time, every reply checked. While
// there is nothing to write, a probe tells whether there could be.
import { historyKey, lastStateKey, updatesChannel } from '@iot/shared/contract'
import type { Redis } from 'ioredis'
import type { Logger } from 'pino'
import { Counter, Gauge, Histogram } from 'prom-client'
import { type DeviceWork, newestOf } from '../batch.js'
import type { Refusal, Sink } from '../storing.js'
import { createAcceptance, LostError } from './acceptance.js'
import { createConnection, type RedisAccess, translated } from './connection.js'
import { createDurability } from './durability.js'
import { guardKey, PROBE_KEY, positionOf } from './keys.js'
import { expectReply, needsNewConnection, RefusedError, readScriptReply } from './replies.js'
import { historyScript, type Script, stateScript } from './scripts.js'

const CALL_MESSAGES = 100 // a call with so many is full: Redis serves nobody else while it runs, about 1 ms
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
const stale = new Counter({ name: 'iot_stale_writes_total', help: 'last states not set, for a newer one stands there' })

type Arguments = (string | number)[]
/** One call of both scripts: its devices, and what each script is given. */
type Call = {
  devices: DeviceWork[]
  states: string[]
  stateArguments: Arguments
  histories: string[]
  entries: Arguments
}

/** A Sink that writes to Redis what docs/contract.md says. */
export function createRedisSink(
  options: { url: string; access: RedisAccess; retentionSeconds: number; durability: 'server' | 'fsync' },
  logger: Logger,
): Sink {
  const { url, access, retentionSeconds } = options
  const acceptance = createAcceptance(logger)
  const connection = () => createConnection(url, access, () => acceptance.check() !== null)
  const redis = connection()
  const durability = options.durability === 'fsync' ? createDurability(redis, connection(), () => void probe()) : null
  let areScriptsLoaded = false
  let ticker: NodeJS.Timeout | undefined

  redis.on('error', (error) => acceptance.connectionFailed(translated(error)))
  redis.on('close', () => acceptance.connectionFailed(new LostError('connection lost')))
  redis.on('ready', () => {
    areScriptsLoaded = false
    connects.inc()
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
      acceptance.probeFailed(error as Error)
    }
  }

  const load = async () => {
    for (const { lua, sha } of [stateScript, historyScript]) expectReply(await redis.script('LOAD', lua), sha)
    areScriptsLoaded = true
  }

  const evaluate = async (calls: Call[]): Promise<Refusal[]> => {
    if (!areScriptsLoaded) await load()
    try {
      return readReplies(calls, await Promise.allSettled(sendAll(redis, calls)))
    } catch (error) {
      if (!isUnknownScript(error)) throw error
      await load() // somebody flushed the scripts
      return readReplies(calls, await Promise.allSettled(sendAll(redis, calls)))
    }
  }

  return {
    start() {
      acceptance.started()
      redis.connect().catch(() => {}) // heard by 'error', repeated by retryStrategy
      durability?.start()
      ticker = setInterval(() => {
        if (acceptance.tick() && redis.status === 'ready') void probe()
      }, TICK_MS)
    },
    check: acceptance.check,
    async write(devices, partition) {
      if (devices.length === 0) return []
      acceptance.admit()
      try {
        const calls = shares(devices).map((share) => toCall(share, partition, retentionSeconds))
        const refused = await stored(() => evaluate(calls))
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

function toCall(devices: DeviceWork[], partition: number, retentionSeconds: number): Call {
  const states: string[] = []
  const stateArguments: Arguments = []
  const histories: string[] = []
  const entries: Arguments = [retentionSeconds]
  const now = Math.floor(Date.now() / 1000)
  for (const work of devices) {
    const { deviceId, messages } = work
    const { payload, timestamp, offset } = newestOf(work)
    states.push(lastStateKey(deviceId), guardKey(deviceId))
    stateArguments.push(payload, timestamp, positionOf(timestamp, partition, offset))
    histories.push(historyKey(deviceId))
    let latest = 0
    for (const message of messages) latest = Math.max(latest, message.timestamp)
    // never later than the latest message's retention allows: a clock that jumped ahead empties no history
    entries.push(`(${Math.min(now, latest) - retentionSeconds}`, updatesChannel(deviceId), messages.length)
    for (const { timestamp, text } of messages) entries.push(timestamp, text)
  }
  return { devices, states, stateArguments, histories, entries }
}

/**
 * Sends all calls in one write, as a pipeline has it: the reply for the states and for the histories of each. ioredis's
 * own Pipeline makes a hidden class for each instance, by which the garbage collector keeps every batch until its next
 * full run.
 */
function sendAll(redis: Redis, calls: Call[]): Promise<unknown>[] {
  const run = ({ sha }: Script, keys: string[], args: Arguments) => redis.evalsha(sha, keys.length, ...keys, ...args)
  const sent: Promise<unknown>[] = []
  const { stream } = redis
  stream.cork()
  try {
    for (const { states, stateArguments, histories, entries } of calls) {
      sent.push(run(stateScript, states, stateArguments), run(historyScript, histories, entries))
    }
  } finally {
    stream.uncork()
  }
  return sent
}

/** @throws when any reply is not that of a stored call */
function readReplies(calls: Call[], replies: PromiseSettledResult<unknown>[]): Refusal[] {
  const refused = new Map<DeviceWork, string>()
  for (const [index, reply] of replies.entries()) {
    if (reply.status === 'rejected') throw reply.reason
    const devices = calls[index >> 1]?.devices ?? []
    const read = readScriptReply(reply.value, devices.length)
    stale.inc(read.stale)
    for (const [at, words] of read.refused) {
      const work = devices[at]
      if (work && !refused.has(work)) refused.set(work, words)
    }
  }
  return [...refused].map(([work, error]) => ({ work, error }))
}

const isUnknownScript = (error: unknown): boolean => error instanceof Error && error.message.startsWith('NOSCRIPT')

function observe(devices: DeviceWork[], refused: Refusal[]): void {
  const without = new Set(refused.map(({ work }) => work))
  const storedAt = Date.now() / 1000
  for (const work of devices) {
    if (without.has(work)) continue
    const { timestamp } = newestOf(work)
    newestStored = Math.max(newestStored, timestamp)
    delays.observe(Math.max(storedAt - timestamp, 0))
  }
}
