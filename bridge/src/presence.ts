// Who is online: device ids with the time of their last sign of life, in memory only and bounded in ids and bytes.
//
// A device that was online keeps its place for one more timeout after it went offline, so that strangers who fill the
// room meanwhile do not shut it out; new devices are refused, counted and logged while the room is full.
import { randomBytes } from 'node:crypto'
import { createLimitedLog } from '@iot/shared/log-limit'
import type { Logger } from 'pino'
import { Counter, Gauge } from 'prom-client'

const MAX_ID_BYTES = 64_000_000 // of all ids together: 200,000 of the longest ones fit
const SWEEP_MS = 1000 // how often room is looked for while there is none
const LISTING_SHARE = 10 // at most a tenth of the time goes into the list, however often it is asked for
const KEPT_CHANGES = 10_000

const refused = new Counter({
  name: 'iot_presence_refused_total',
  help: 'signs of life of new devices that were refused because the room for online devices is full',
})
const rooms = new Set<() => number>()
new Gauge({
  name: 'iot_online_devices',
  help: 'devices online now',
  collect() {
    this.set([...rooms].reduce((sum, count) => sum + count(), 0))
  },
})

/** What a hello meant: a sign of life, a device that says it goes, or a new device that there is no room for. */
export type HelloOutcome = 'seen' | 'offline' | 'refused'

export type Presence = {
  /** A sign of life came from this device just now. Cheap for one that is known: a look-up and a clock. */
  seen(deviceId: string): 'seen' | 'refused'
  /** A hello came: a sign of life, or, with exactly the payload that says so, the device's end. */
  hello(deviceId: string, payload: Buffer): HelloOutcome
  isOnline(deviceId: string): boolean
  /** When the last sign of life of a device that is online came, Unix time in seconds; null when it is not online. */
  lastSeen(deviceId: string): number | null
  /**
   * The ids online now, sorted; the same array as long as they stay the same. It may be a moment old: by nine times as
   * long as making it took, 1 ms with a thousand devices, half a second with 200,000.
   */
  list(): readonly string[]
  /** Names what `list` gives now: whoever has that list, or a later one, needs the changes since this version. */
  version(): string
  /** Who came and who went since a version, as they stand now; null where that is too long ago, or another process's. */
  changesSince(version: string): { version: string; online: string[]; offline: string[] } | null
}

type Device = { seenMs: number; isListed: boolean; bytes: number }

/**
 * @param options.offlinePayload the payload of a hello that takes its device offline at once, such as a last will's
 * @param nowMs a monotonic clock in milliseconds
 */
export function createPresence(
  options: { timeoutSeconds: number; maxDevices: number; maxIdBytes?: number; offlinePayload?: string | undefined },
  logger: Logger,
  nowMs = () => performance.now(),
): Presence {
  const { maxDevices, maxIdBytes = MAX_ID_BYTES } = options
  const timeoutMs = options.timeoutSeconds * 1000
  const offlinePayload = options.offlinePayload === undefined ? null : Buffer.from(options.offlinePayload)
  const log = createLimitedLog(logger)
  const devices = new Map<string, Device>()
  let idBytes = 0
  let sweptMs = Number.NEGATIVE_INFINITY
  let sorted: string[] = []
  let isSortedStale = false // a device left that is listed
  const added = new Set<string>() // since it was sorted
  let lookAgainMs = Number.NEGATIVE_INFINITY
  const run = randomBytes(6).toString('hex')
  let changed: string[] = [] // the newest at its end
  let changes = 0
  let sortedChanges = 0 // of them are in `sorted`

  const isFull = (bytes: number) => devices.size >= maxDevices || idBytes + bytes > maxIdBytes

  const note = (deviceId: string) => {
    changes++
    changed.push(deviceId)
    if (changed.length >= 2 * KEPT_CHANGES) changed = changed.slice(-KEPT_CHANGES)
  }

  const unlist = (deviceId: string) => {
    isSortedStale = true
    note(deviceId)
  }

  /** Takes the places of those that went offline more than a timeout ago. */
  const sweep = (now: number) => {
    if (now - sweptMs < SWEEP_MS) return
    sweptMs = now
    for (const [deviceId, device] of devices) {
      if (now - device.seenMs <= 2 * timeoutMs) continue
      devices.delete(deviceId)
      idBytes -= device.bytes
      if (device.isListed) unlist(deviceId)
    }
  }

  const admit = (deviceId: string, now: number) => {
    const bytes = Buffer.byteLength(deviceId)
    if (isFull(bytes)) sweep(now)
    if (isFull(bytes)) {
      refused.inc()
      log.warn('full', { online: devices.size, maxDevices }, 'no room for more online devices: a new one is refused')
      return 'refused'
    }
    idBytes += bytes
    // a copy, since a part of a topic would keep the whole topic in memory
    devices.set(Buffer.from(deviceId).toString(), { seenMs: now, isListed: false, bytes })
    return 'seen'
  }

  const seen = (deviceId: string) => {
    const device = devices.get(deviceId)
    if (device === undefined) return admit(deviceId, nowMs())
    device.seenMs = nowMs()
    return 'seen'
  }

  const online = (deviceId: string) => {
    const device = devices.get(deviceId)
    return device !== undefined && nowMs() - device.seenMs <= timeoutMs ? device : null
  }

  /** Finds out who came and who went since the last time. @returns whether it is time for more than that */
  const look = (): boolean => {
    const startMs = nowMs()
    if (startMs < lookAgainMs) return false
    sweep(startMs)
    for (const [deviceId, device] of devices) {
      const isOnline = startMs - device.seenMs <= timeoutMs
      if (isOnline === device.isListed) continue
      device.isListed = isOnline
      if (!isOnline) {
        unlist(deviceId)
        continue
      }
      added.add(deviceId)
      note(deviceId)
    }
    restAfter(startMs)
    return true
  }

  const restAfter = (startMs: number) => {
    const endMs = nowMs()
    lookAgainMs = endMs + (LISTING_SHARE - 1) * (endMs - startMs)
  }

  const list = () => {
    const startMs = nowMs()
    if (!look() || (!isSortedStale && added.size === 0)) return sorted
    const isListed = (deviceId: string) => devices.get(deviceId)?.isListed === true
    const stays = (deviceId: string) => isListed(deviceId) && !added.has(deviceId) // it may have gone and come back
    sorted = (isSortedStale ? sorted.filter(stays) : sorted).concat([...added].filter(isListed))
    sorted.sort() // costs little where most of it is in order already
    isSortedStale = false
    added.clear()
    sortedChanges = changes
    restAfter(startMs)
    return sorted
  }

  rooms.add(() => list().length)

  return {
    seen,
    hello(deviceId, payload) {
      if (offlinePayload === null || !offlinePayload.equals(payload)) return seen(deviceId)
      const device = online(deviceId)
      if (device !== null) device.seenMs = nowMs() - timeoutMs - 1 // it keeps its place, as if it had timed out
      return 'offline'
    },
    isOnline: (deviceId) => online(deviceId) !== null,
    lastSeen(deviceId) {
      const device = online(deviceId)
      return device === null ? null : Math.floor((Date.now() - (nowMs() - device.seenMs)) / 1000)
    },
    list,
    version() {
      list()
      return `${run}-${sortedChanges}`
    },
    changesSince(version) {
      look()
      const [, count] = version.startsWith(`${run}-`) ? version.split('-') : []
      const behind = changes - Number(count ?? Number.NaN)
      if (!(behind >= 0 && behind <= Math.min(changed.length, KEPT_CHANGES))) return null
      const ids = [...new Set(changed.slice(changed.length - behind))]
      const isListed = (deviceId: string) => devices.get(deviceId)?.isListed === true
      return {
        version: `${run}-${changes}`,
        online: ids.filter(isListed),
        offline: ids.filter((deviceId) => !isListed(deviceId)),
      }
    },
  }
}
