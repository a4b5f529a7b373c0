// Looks at Redis's memory every 15 s: what it uses and may use, what a reading takes, when it is full if it goes on so.
// Says in one line what about its settings loses data.
import { describe } from '@iot/shared/errors'
import type { Redis } from 'ioredis'
import type { Logger } from 'pino'
import { Gauge } from 'prom-client'
import { HISTORIES } from './keys.js'
import { createScan } from './scan.js'
import { createTrend } from './trend.js'

const LOOK_MS = 15_000
const TREND_S = 1800
const SAMPLED = 20 // histories that are measured at each look

const gauge = (name: string, help: string) => new Gauge({ name, help })
const used = gauge('iot_redis_used_bytes', 'memory that Redis uses for data')
const limit = gauge('iot_redis_limit_bytes', 'maxmemory of Redis, 0 for none')
const perReading = gauge('iot_redis_bytes_per_reading', 'what a reading in a history takes, of some histories')
const untilFull = gauge('iot_redis_minutes_until_full', 'if memory goes on growing as in the last half hour')
const evicted = gauge('iot_redis_evicted_keys', 'keys that Redis has thrown away since it started')
const fragmentation = gauge('iot_redis_fragmentation_ratio', 'resident memory of Redis by what it uses')
const rewriting = gauge('iot_redis_rewriting', '1 while Redis rewrites its append-only file')
const rewriteFailed = gauge('iot_redis_rewrite_failed', '1 when the last rewrite of the append-only file failed')
const fileBytes = gauge('iot_redis_file_bytes', 'size of the append-only file')

untilFull.set(Number.POSITIVE_INFINITY)

/** The lines of INFO by their names. */
export const readInfo = (text: string): Map<string, string> =>
  new Map([...text.matchAll(/^(\w+):(.*?)\r?$/gm)].map(([, name = '', value = '']) => [name, value]))

/** What about Redis's settings loses data, in words; null when nothing. */
export function memoryWarning(info: Map<string, string>): string | null {
  const policy = info.get('maxmemory_policy')
  if (policy !== undefined && policy !== 'noeviction')
    return `Redis throws data away when it is full (maxmemory-policy ${policy}): set noeviction`
  if (info.get('maxmemory') === '0')
    return 'Redis has no maxmemory: it grows until the system or its container kills it, and again while it loads its file'
  return null
}

export type Memory = {
  /** Call it every second while there is a connection. */
  tick(): void
  /** The settings may be another server's. */
  reconnected(): void
}

export function createMemory(redis: Redis, logger: Logger): Memory {
  const scan = createScan(redis, HISTORIES)
  const trend = createTrend(TREND_S)
  let lookedMs = Number.NEGATIVE_INFINITY
  const said = new Set<string>()

  const show = (info: Map<string, string>) => {
    const read = (name: string) => Number(info.get(name) ?? 0)
    const [usedBytes, limitBytes] = [read('used_memory'), read('maxmemory')]
    used.set(usedBytes)
    limit.set(limitBytes)
    evicted.set(read('evicted_keys'))
    fragmentation.set(read('mem_fragmentation_ratio'))
    rewriting.set(read('aof_rewrite_in_progress'))
    rewriteFailed.set(info.get('aof_last_bgrewrite_status') === 'err' ? 1 : 0)
    fileBytes.set(read('aof_current_size'))
    trend.add(performance.now() / 1000, usedBytes)
    const seconds = limitBytes === 0 ? null : trend.secondsUntil(limitBytes)
    untilFull.set(seconds === null ? Number.POSITIVE_INFINITY : seconds / 60)
    const warning = memoryWarning(info)
    if (warning === null || said.has(warning)) return
    said.add(warning)
    logger.warn(warning)
  }

  /** Of the histories that come next. */
  const measure = async () => {
    const { keys } = await scan.step()
    let [bytes, readings] = [0, 0]
    for (const key of keys.slice(0, SAMPLED)) {
      const [usage, count] = await Promise.all([redis.memory('USAGE', key), redis.zcard(key)])
      if (usage === null || count === 0) continue
      bytes += usage
      readings += count
    }
    if (readings > 0) perReading.set(bytes / readings)
  }

  return {
    tick() {
      if (performance.now() - lookedMs < LOOK_MS) return
      lookedMs = performance.now()
      const failed = (error: unknown) => logger.debug({ error: describe(error) }, 'Redis does not tell of its memory')
      redis
        .info()
        .then((text) => show(readInfo(text)))
        .catch(failed)
      measure().catch(failed)
    },
    reconnected() {
      lookedMs = Number.NEGATIVE_INFINITY
      trend.clear()
    },
  }
}
