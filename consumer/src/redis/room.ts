// A Redis at its `maxmemory` refuses what needs memory, and takes what frees some. While it refuses, what is older than
// the retention is removed: from the histories of the devices that wait, and step by step from all.
import { historyKey } from '@iot/shared/contract'
import { describe } from '@iot/shared/errors'
import type { Redis } from 'ioredis'
import type { Logger } from 'pino'
import { Counter, Gauge } from 'prom-client'
import { HISTORIES } from './keys.js'
import { createScan } from './scan.js'
import { trimScript } from './scripts.js'

const STEPS = 10 // of the scan for each refusal, of which there are two a second at most
const TRIM_KEYS = 500 // histories in a call
const TRIAL_MS = 500
const FULL_MS = 10_000 // without a refusal

const trimmed = new Counter({ name: 'iot_redis_trimmed_readings_total', help: 'readings removed to make room' })
const full = new Gauge({ name: 'iot_redis_full', help: '1 while Redis refuses what needs memory' })

export type Room = {
  /** Redis refused for memory what these devices would have taken: removes what is too old. */
  refused(deviceIds: string[]): void
  /** Whether Redis refused within the last ten seconds. */
  isFull(): boolean
  /** Whether one more try is due: half a second after a refusal. */
  isDue(): boolean
  /** Whether Redis refused within the last retention: histories keep nothing then that is too old already. */
  isScarce(): boolean
  /** Unix time in seconds, by the earlier of our clock and Redis's as it was when last asked. */
  nowS(): number
}

/** @param nowMs a monotonic clock in milliseconds */
export function createRoom(
  redis: Redis,
  retentionSeconds: number,
  logger: Logger,
  nowMs = () => performance.now(),
): Room {
  const scan = createScan(redis, HISTORIES)
  let refusedMs = Number.NEGATIVE_INFINITY
  let isMaking = false
  let aheadS = 0 // Redis's clock
  const isFull = () => nowMs() - refusedMs < FULL_MS
  full.set(0)

  const trim = async (keys: string[]) => {
    for (let from = 0; from < keys.length; from += TRIM_KEYS) {
      const some = keys.slice(from, from + TRIM_KEYS)
      const now = Math.floor(Date.now() / 1000)
      const reply = await redis.eval(trimScript.lua, some.length, ...some, now, retentionSeconds)
      const [removed, time] = reply as [number, number]
      trimmed.inc(removed)
      aheadS = time - now
    }
  }

  const make = async (deviceIds: string[]) => {
    await trim(deviceIds.map(historyKey))
    for (let step = 0; step < STEPS; step++) {
      const { keys, isOver } = await scan.step()
      await trim(keys)
      if (isOver) return
    }
  }

  return {
    refused(deviceIds) {
      refusedMs = nowMs()
      full.set(1)
      setTimeout(() => full.set(isFull() ? 1 : 0), FULL_MS + 1).unref()
      if (isMaking) return
      isMaking = true
      make(deviceIds)
        .catch((error) => logger.debug({ error: describe(error) }, 'no room could be made'))
        .finally(() => {
          isMaking = false
        })
    },
    isFull,
    isDue: () => nowMs() - refusedMs >= TRIAL_MS,
    nowS: () => Math.floor(Date.now() / 1000) + Math.min(aheadS, 0),
    isScarce: () => nowMs() - refusedMs < retentionSeconds * 1000,
  }
}
