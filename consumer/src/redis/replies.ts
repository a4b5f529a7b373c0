// What Redis says, read strictly. A reply is a success only in the exact form that the scripts give it, an error is
// about a device's data only when it is on a closed list: everything else means that nothing was stored. Pure.
import { NEW_DEVICE } from './scripts.js'

/** Redis, or whatever stands before it, replied, and it was not what a stored batch is replied with. */
export class RefusedError extends Error {}

// The forms of Redis 6.2 ("@user_script: 1: -OOM …"), of an error outside a pcall, and the tail of 7.0 and later.
const HEAD = /^(?:ERR Error running script \(call to \w+\): )?(?:@?user_script: ?\d+: )?-?/
const TAIL = / script: [^ ]*,? ?on @user_script:\d+\.?$/
const MAX_WORDS = 300

/** Redis's words without the script's name and line, cut to what a log line takes. */
export const wordsOf = (message: string): string =>
  message
    .slice(0, 2 * MAX_WORDS)
    .replace(HEAD, '')
    .replace(TAIL, '')
    .slice(0, MAX_WORDS)

/**
 * What SET, HSET, ZADD, ZREMRANGEBYSCORE, EXPIRE and PUBLISH can say about one device's key or values. Only these make
 * dead letters. A refused permission, a full memory or disk, a replica and whatever is not known are Redis's state: it
 * passes or is put right, and the same batch is written then.
 */
const ABOUT_THE_DATA = [
  'WRONGTYPE ',
  'ERR value is not a valid float',
  'ERR min or max is not a float',
  'ERR string exceeds maximum allowed size',
]

export const isAboutTheData = (words: string): boolean => ABOUT_THE_DATA.some((start) => words.startsWith(start))

/** What this server would say on a new connection too. Anything else may come from a server that has lost its role. */
const STAYS = /^(?:OOM|MISCONF|NOPERM|NOSCRIPT|BUSY)\b/

/** Whether Redis is at its `maxmemory`, and evicts nothing. */
export const isFull = (error: unknown): boolean => error instanceof RefusedError && error.message.startsWith('OOM ')

/** Whether a new connection may reach a server that takes writes: after a failover behind one address it does. */
export const needsNewConnection = (words: string): boolean => !STAYS.test(words)

export type ScriptReply = {
  /** How many last states were not set, for a newer one stands there; or how many readings were cut. */
  count: number
  /** By the device's index in the call. */
  refused: Map<number, string>
}

const NOBODY: ReadonlyMap<number, string> = new Map()
const isCount = (value: unknown): value is number => Number.isInteger(value) && (value as number) >= 0

/**
 * Reads the reply of either script to a call for `devices` devices.
 * @param areDevices whether the second number counts devices of the call, as that of stale ones does
 * @throws RefusedError when it has another form, does not account for every device, or says anything that is not
 * about a device's data
 */
export function readScriptReply(reply: unknown, devices: number, areDevices = true): ScriptReply {
  if (!Array.isArray(reply)) throw unexpected()
  const [stored, count] = reply as unknown[]
  if (reply.length % 2 !== 0 || !isCount(stored) || !isCount(count)) throw unexpected()
  if (stored + (areDevices ? count : 0) + (reply.length - 2) / 2 !== devices) throw unexpected()
  if (reply.length === 2) return { count, refused: NOBODY as Map<number, string> }
  const refused = new Map<number, string>()
  let before = 0
  for (let at = 2; at < reply.length; at += 2) {
    const device: unknown = reply[at]
    const message: unknown = reply[at + 1]
    // the script names each device once, in the order of the call
    if (!isCount(device) || device <= before || device > devices || typeof message !== 'string') throw unexpected()
    before = device
    const words = wordsOf(message)
    if (words !== NEW_DEVICE && !isAboutTheData(words)) throw new RefusedError(words)
    refused.set(device - 1, words)
  }
  return { count, refused }
}

/** @throws RefusedError when the reply to a plain command is not the expected one */
export function expectReply(reply: unknown, expected: unknown): void {
  if (reply !== expected) throw unexpected()
}

const unexpected = () => new RefusedError('unexpected reply')
