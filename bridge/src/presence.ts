// Who is online: device ids with the time of their last sign of life, in memory only, oldest first.
// A device that timed out costs nothing. Past the limits new devices are refused; those that are online keep their place
// for as long as they renew it.
import type { Logger } from 'pino'
import { Counter, Gauge } from 'prom-client'

const MAX_ID_CHARACTERS = 32_000_000 // of all ids together
const SAID_MS = 60_000

const refused = new Counter({
  name: 'iot_presence_refused_total',
  help: 'signs of life of new devices refused at the limit',
})
const online = new Gauge({ name: 'iot_online_devices', help: 'devices online now' })

export type Presence = {
  /** A sign of life came from this device just now. */
  seen(deviceId: string): void
  /** The device is offline from now on. */
  gone(deviceId: string): void
  isOnline(deviceId: string): boolean
  /** When the last sign of life of a device that is online came, Unix time in seconds; null when it is not online. */
  lastSeen(deviceId: string): number | null
  /** The ids online now, sorted; the same array as long as they stay the same. */
  list(): readonly string[]
}

/** What a hello means. @param offlinePayload a hello with just this, such as a last will, takes the device offline */
export function createHello(presence: Pick<Presence, 'seen' | 'gone'>, offlinePayload: string | undefined) {
  const offline = offlinePayload === undefined ? null : Buffer.from(offlinePayload)
  return (deviceId: string, payload: Buffer) =>
    offline?.equals(payload) ? presence.gone(deviceId) : presence.seen(deviceId)
}

/** @param nowMs a monotonic clock in milliseconds */
export function createPresence(
  timeoutSeconds: number,
  maxDevices: number,
  logger: Pick<Logger, 'warn'>,
  nowMs = () => performance.now(),
): Presence {
  const lastSeen = new Map<string, number>() // in the order of the last hello, for it is deleted before it is set
  let characters = 0
  let saidMs = Number.NEGATIVE_INFINITY
  let sorted: string[] = []
  const added = new Set<string>() // since `sorted` was made
  const gone = new Set<string>()

  const dropTimedOut = () => {
    const oldest = nowMs() - timeoutSeconds * 1000
    for (const [deviceId, at] of lastSeen) {
      if (at >= oldest) break
      drop(deviceId)
    }
    online.set(lastSeen.size)
  }

  const drop = (deviceId: string) => {
    if (!lastSeen.delete(deviceId)) return
    characters -= deviceId.length
    if (!added.delete(deviceId)) gone.add(deviceId)
  }

  const refuse = () => {
    refused.inc()
    if (nowMs() - saidMs < SAID_MS) return
    saidMs = nowMs()
    logger.warn({ online: lastSeen.size, maxDevices }, 'new devices are refused: MAX_ONLINE_DEVICES are online')
  }

  return {
    seen(deviceId) {
      if (!lastSeen.delete(deviceId)) {
        dropTimedOut()
        if (lastSeen.size >= maxDevices || characters + deviceId.length > MAX_ID_CHARACTERS) return refuse()
        characters += deviceId.length
        if (!gone.delete(deviceId)) added.add(deviceId)
      }
      lastSeen.set(deviceId, nowMs())
    },
    gone: drop,
    isOnline(deviceId) {
      dropTimedOut()
      return lastSeen.has(deviceId)
    },
    lastSeen(deviceId) {
      dropTimedOut()
      const at = lastSeen.get(deviceId)
      return at === undefined ? null : Math.floor((Date.now() - (nowMs() - at)) / 1000)
    },
    list() {
      dropTimedOut()
      if (added.size + gone.size === 0) return sorted
      sorted = sorted.filter((deviceId) => !gone.has(deviceId)).concat([...added])
      sorted.sort() // costs little where most of it is in order already
      added.clear()
      gone.clear()
      return sorted
    },
  }
}
