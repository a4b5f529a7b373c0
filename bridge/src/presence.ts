// Who is online: device ids with the time of their last hello, in memory only, oldest first.
// A device that timed out costs nothing, and past the limit new ones are refused.
import { Counter, Gauge } from 'prom-client'

const refused = new Counter({ name: 'iot_presence_refused_total', help: 'hellos of new devices refused at the limit' })
const online = new Gauge({ name: 'iot_online_devices', help: 'devices online now' })

export type Presence = {
  /** A hello came from this device just now. */
  seen(deviceId: string): void
  isOnline(deviceId: string): boolean
  /** When the last hello of a device that is online came, Unix time in seconds; null when it is not online. */
  lastSeen(deviceId: string): number | null
  /** The ids online now, sorted; the same array as long as they stay the same. */
  list(): readonly string[]
}

/** @param nowMs a monotonic clock in milliseconds */
export function createPresence(timeoutSeconds: number, maxDevices: number, nowMs = () => performance.now()): Presence {
  const lastSeen = new Map<string, number>() // in the order of the last hello, for it is deleted before it is set
  let sorted: string[] = []
  const added = new Set<string>() // since `sorted` was made
  const gone = new Set<string>()

  const dropTimedOut = () => {
    const oldest = nowMs() - timeoutSeconds * 1000
    for (const [deviceId, at] of lastSeen) {
      if (at >= oldest) break
      lastSeen.delete(deviceId)
      if (!added.delete(deviceId)) gone.add(deviceId)
    }
    online.set(lastSeen.size)
  }

  return {
    seen(deviceId) {
      if (!lastSeen.delete(deviceId)) {
        dropTimedOut()
        if (lastSeen.size >= maxDevices) return refused.inc()
        if (!gone.delete(deviceId)) added.add(deviceId)
      }
      lastSeen.set(deviceId, nowMs())
    },
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
