// How many devices Redis knows: the state script counts those that come, and where the last states of others were removed
// this counts again.
import { describe } from '@iot/shared/errors'
import type { Redis } from 'ioredis'
import type { Logger } from 'pino'
import { Gauge } from 'prom-client'
import { GUARDS, KNOWN_KEY } from './keys.js'
import { createScan } from './scan.js'

const PERIOD_MS = 300_000

const devices = new Gauge({ name: 'iot_known_devices', help: 'devices that have a last state, where they are counted' })

/** Counts now, and then every five minutes while it is asked each second. */
export function createKnown(redis: Redis, logger: Logger) {
  let countedMs = Number.NEGATIVE_INFINITY
  let isCounting = false

  const read = async () => Number((await redis.get(KNOWN_KEY)) ?? 0)

  const count = async () => {
    const before = await read()
    const scan = createScan(redis, GUARDS)
    let found = 0
    for (;;) {
      const { keys, isOver } = await scan.step()
      found += keys.length
      if (isOver) break
    }
    // of those that came meanwhile the scan has met some: they are counted twice until the next time
    const since = before === 0 ? 0 : Math.max((await read()) - before, 0)
    await redis.set(KNOWN_KEY, found + since)
  }

  return {
    tick() {
      if (isCounting) return
      isCounting = true
      const isDue = performance.now() - countedMs >= PERIOD_MS
      if (isDue) countedMs = performance.now()
      ;(isDue ? count() : Promise.resolve())
        .then(read)
        .then((known) => devices.set(known))
        .catch((error) => {
          if (isDue) countedMs = Number.NEGATIVE_INFINITY
          logger.debug({ error: describe(error) }, 'devices not counted')
        })
        .finally(() => {
          isCounting = false
        })
    },
  }
}
