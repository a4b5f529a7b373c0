// Who is online: device ids with the time of their last sign of life, in memory only and bounded in ids and bytes.
//
// A device that was online keeps its place for one more timeout after it went offline, so that strangers who fill the
// room meanwhile do not shut it out; new devices are refused, counted and logged while the room is full.
import { createLimitedLog } from '@iot/shared/log-limit'
import type { Logger } from 'pino'
import { Counter, Gauge } from 'prom-client'

const MAX_ID_BYTES = 64_000_000 // of all ids together: 200,000 of the longest ones fit
const SWEEP_MS = 1000 // how often room is looked for while there is none
const LISTING_SHARE = 10 // at most a tenth of the time goes into the list, however often it is asked for

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
  let listAgainMs = Number.NEGATIVE_INFINITY

  const isFull = (bytes: number) => devices.size >= maxDevices || idBytes + bytes > maxIdBytes

  /** Takes the places of those that went offline more than a timeout ago. */
  const sweep = (now: number) => {
    if (now - sweptMs < SWEEP_MS) return
    sweptMs = now
    for (const [deviceId, device] of devices) {
      if (now - device.seenMs <= 2 * timeoutMs) continue
      devices.delete(deviceId)
      idBytes -= device.bytes
      isSortedStale ||= device.isListed
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

  const list = () => {
    const startMs = nowMs()
    if (startMs < listAgainMs) return sorted
    sweep(startMs)
    const added: string[] = []
    for (const [deviceId, device] of devices) {
      const isOnline = startMs - device.seenMs <= timeoutMs
      if (isOnline === device.isListed) continue
      device.isListed = isOnline
      if (isOnline) added.push(deviceId)
      else isSortedStale = true
    }
    if (isSortedStale || added.length > 0) {
      const isAdded = new Set(added) // a device may have lost its place and come back since the last time
      const stays = (deviceId: string) => devices.get(deviceId)?.isListed === true && !isAdded.has(deviceId)
      sorted = (isSortedStale ? sorted.filter(stays) : sorted).concat(added)
      sorted.sort() // costs little where most of it is in order already
      isSortedStale = false
    }
    const endMs = nowMs()
    listAgainMs = endMs + (LISTING_SHARE - 1) * (endMs - startMs)
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
  }
}
