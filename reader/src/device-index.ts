// All devices that are known: those with a last state in Redis, found by a gentle scan again and again, and those that are
// online. In memory are their ids and when each was last heard, not what they said.
import { pause } from '@iot/shared/backoff'
import { lastStateKey } from '@iot/shared/contract'
import type { Command, RedisReader } from './redis/connection.js'

const SCAN_COUNT = 500
const SCAN_PAUSE_MS = 10
const RETRY_MS = 500
const MIN_PERIOD_MS = 2000
const MAX_PERIOD_MS = 60_000
const SHARE = 100 // a hundredth of Redis's time at most, as long as somebody asks
const IDLE_FACTOR = 10 // a tenth of that when nobody has asked for a while
const IDLE_MS = 60_000
const BATCH = 500

export type DeviceIndex = {
  /** A device that is there, and the Unix time of its newest reading where there is one. */
  saw(deviceId: string, seconds?: number): void
  /** All ids, sorted. */
  ids(): readonly string[]
  /** Whether `ids` are all there are. */
  isWhole(): boolean
  /** When a device was last heard as far as is known, Unix time; 0 for never. */
  lastHeard(deviceId: string): number
  /** Asks Redis when these were last heard, for the index may be a minute behind. @throws {Problem} when it does not answer */
  refresh(read: RedisReader['read'], ids: readonly string[]): Promise<void>
  start(): void
  stop(): void
}

/**
 * @param options.isOnline who is known although Redis has nothing of it
 * @param options.maxDevices more are not taken in
 */
export function createDeviceIndex(
  { read }: Pick<RedisReader, 'read'>,
  options: { maxDevices: number; isOnline: (deviceId: string) => boolean },
): DeviceIndex {
  const heard = new Map<string, number>()
  let sorted: string[] = []
  let added: string[] = [] // since it was sorted
  const newcomers = new Set<string>() // since the scan began, which may have passed them by
  let isScanned = false
  let isFull = false
  let isStopped = false
  let askedMs = Number.NEGATIVE_INFINITY

  const saw = (deviceId: string, seconds = 0) => {
    const before = heard.get(deviceId)
    if (before === undefined) {
      isFull ||= heard.size >= options.maxDevices
      if (heard.size >= options.maxDevices) return
      added.push(deviceId)
      newcomers.add(deviceId)
    }
    if (before === undefined || seconds > before) heard.set(deviceId, seconds)
  }

  const refresh = async (readNow: RedisReader['read'], ids: readonly string[]) => {
    for (let at = 0; at < ids.length; at += BATCH) {
      const batch = ids.slice(at, at + BATCH)
      const replies = await readNow(batch.map((id): Command => ['HGET', lastStateKey(id), 'timestamp']))
      for (const [index, id] of batch.entries()) {
        const seconds = Number(replies[index])
        if (typeof replies[index] === 'string' && Number.isFinite(seconds)) saw(id, seconds)
      }
    }
  }

  const ids = () => {
    if (added.length > 0) sorted = sorted.concat(added).sort() // costs little, for most of it is in order
    added = []
    return sorted
  }

  /** Finds every device with a state once; forgets those that have none any more. @returns the time that Redis took */
  const scan = async (): Promise<number> => {
    const found = new Set<string>()
    newcomers.clear()
    let tookMs = 0
    const timed: RedisReader['read'] = async (commands) => {
      const startMs = performance.now()
      return read(commands).finally(() => {
        tookMs += performance.now() - startMs
      })
    }
    const match = `${lastStateKey('')}*`
    for (let cursor = '0'; ; await pause(SCAN_PAUSE_MS)) {
      const [reply] = await timed([['SCAN', cursor, 'MATCH', match, 'COUNT', SCAN_COUNT, 'TYPE', 'hash']])
      const [next, keys] = reply as [string, string[]]
      const ids = keys.map((key) => key.slice(lastStateKey('').length))
      for (const id of ids) found.add(id)
      await refresh(timed, ids)
      cursor = next
      if (cursor === '0' || isStopped) break
    }
    const stays = (id: string) => found.has(id) || newcomers.has(id) || options.isOnline(id)
    const gone = new Set([...heard.keys()].filter((id) => !stays(id)))
    for (const id of gone) heard.delete(id)
    if (gone.size > 0) sorted = ids().filter((id) => !gone.has(id))
    isFull = found.size > heard.size
    isScanned = true
    return tookMs
  }

  const follow = async () => {
    while (!isStopped) {
      const tookMs = await scan().catch(() => null)
      if (tookMs === null) {
        await pause(RETRY_MS) // Redis is away: the index stays as it is
        continue
      }
      const startMs = performance.now()
      const isDue = () => {
        const factor = performance.now() - askedMs < IDLE_MS ? 1 : IDLE_FACTOR
        const periodMs = Math.min(Math.max(tookMs * SHARE * factor, MIN_PERIOD_MS), MAX_PERIOD_MS * factor)
        return performance.now() - startMs >= periodMs
      }
      while (!isStopped && !isDue()) await pause(RETRY_MS)
    }
  }

  return {
    saw,
    refresh,
    ids() {
      askedMs = performance.now()
      return ids()
    },
    isWhole: () => isScanned && !isFull,
    lastHeard: (deviceId) => heard.get(deviceId) ?? 0,
    start: () => void follow(),
    stop() {
      isStopped = true
    },
  }
}

/** Where in the sorted `ids` the first one stands that is not before `id`. */
export function lowerBound(ids: readonly string[], id: string): number {
  let from = 0
  let to = ids.length
  while (from < to) {
    const middle = (from + to) >> 1
    if ((ids[middle] as string) < id) from = middle + 1
    else to = middle
  }
  return from
}
