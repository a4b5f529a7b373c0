// From the work of a batch to the calls of the two scripts. Pure but for the clock that it is handed.
import { guardKey, historyKey, lastStateKey, positionOf, updatesChannel } from '@iot/shared/contract'
import { type DeviceWork, newestOf } from '../batch.js'
import { KNOWN_KEY } from './keys.js'
import { type Limits, NO_LIMITS } from './scripts.js'

const CALL_MESSAGES = 100 // a call with so many is full: Redis serves nobody else while it runs, about 1 ms

const CHECKS = 64 // of a history's bytes, on average, while as many are added as it may have

const NOT_PUBLISHED = '' // in place of a channel

type Arguments = (string | number)[]

/** Some devices, with the keys and arguments that each script is called with for them (see `scripts.ts`). */
export type Call = {
  devices: DeviceWork[]
  state: { keys: string[]; args: Arguments }
  history: { keys: string[]; args: Arguments }
}

export type CallOptions = {
  retentionSeconds: number
  /** The records were published long ago: nothing is published again, and none that is too old enters a history. */
  isReplay?: boolean
  /** Redis is or lately was full: what is too old by the clock leaves each history that is written, new as it may be. */
  isScarce?: boolean
  limits?: Limits
}

/**
 * @param nowS Unix time in seconds
 * @param random from 0 to 1, decides whose history's bytes are measured
 */
export function planCalls(
  devices: DeviceWork[],
  partition: number,
  options: CallOptions,
  nowS: number,
  random = Math.random,
): Call[] {
  const { limits = NO_LIMITS } = options
  const calls: Call[] = []
  let call: Call | undefined
  let messages = 0
  for (const work of devices) {
    if (!call || messages >= CALL_MESSAGES) {
      call = { devices: [], state: { keys: [], args: [] }, history: { keys: [], args: [options.retentionSeconds] } }
      calls.push(call)
      messages = 0
    }
    add(call, work, partition, options, nowS)
    messages += work.messages.length
  }
  for (const one of calls) limit(one, limits, random)
  return calls
}

/** What the scripts are given besides, where there are limits. */
function limit({ devices, state, history }: Call, { knownDevices, historyBytes }: Limits, random: () => number): void {
  if (historyBytes > 0) history.args.splice(1, 0, chooseMeasured(devices, (random() * historyBytes) / CHECKS))
  if (knownDevices === 0) return
  state.keys.push(KNOWN_KEY)
  for (const { deviceId } of devices) history.keys.push(guardKey(deviceId))
}

/** The number of the device that wrote the byte at this place of the call; 0 where the call has fewer bytes. */
function chooseMeasured(devices: DeviceWork[], place: number): number {
  let bytes = 0
  for (const [index, { messages }] of devices.entries()) {
    for (const { text } of messages) bytes += text.length
    if (bytes > place) return index + 1
  }
  return 0
}

function add(
  { devices, state, history }: Call,
  work: DeviceWork,
  partition: number,
  options: CallOptions,
  nowS: number,
) {
  const { retentionSeconds, isReplay = false, isScarce = false } = options
  const { deviceId, messages } = work
  const { message, offset } = newestOf(work)
  devices.push(work)
  state.keys.push(lastStateKey(deviceId), guardKey(deviceId))
  state.args.push(message.payload, message.timestamp, positionOf(message.seconds, partition, offset))
  let latest = 0
  for (const { seconds } of messages) latest = Math.max(latest, seconds)
  const kept = isReplay ? messages.filter(({ seconds }) => seconds >= nowS - retentionSeconds) : messages
  history.keys.push(historyKey(deviceId))
  // never later than the latest message's retention allows: a clock that jumped ahead empties no history
  const below = `(${(isScarce ? nowS : Math.min(nowS, latest)) - retentionSeconds}`
  history.args.push(below, isReplay ? NOT_PUBLISHED : updatesChannel(deviceId), kept.length)
  for (const { timestamp, text } of kept) history.args.push(timestamp, text)
}
