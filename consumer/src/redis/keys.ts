// The keys that are the consumer's own, and what it keeps in them. Pure.
import { historyKey, lastStateKey } from '@iot/shared/contract'

/**
 * Begins otherwise than a device's keys, so that no device id can name a guard. Its CRC16 is 0 (`hgi` makes it so): put
 * before a key, it leaves the key in its Redis Cluster slot, whatever braces the key holds. It is as short as that
 * allows, for Redis hashes the whole key two times for each device and batch.
 */
const GUARD = 'guardhgi:'

/** Holds the position of what last_state shows; in the slot of the device's last_state key. */
export const guardKey = (deviceId: string): string => GUARD + lastStateKey(deviceId)

/** Written to learn whether Redis takes writes; covered by every ACL that covers the guards. */
export const PROBE_KEY = `${GUARD}probe`

/** How many devices have a last state; there only with MAX_KNOWN_DEVICES. */
export const KNOWN_KEY = `${GUARD}devices`

/** What the keys of all guards match, and of all histories. */
export const GUARDS = `${GUARD}${lastStateKey('')}*`
export const HISTORIES = `${historyKey('')}*`

/** WAITAOF waits for the writes of its own connection, and so for all before them: this is that write. */
export const FSYNC_KEY = 'iot-consumer:fsync'

const padded = (value: string | number, digits: number) => String(value).padStart(digits, '0')

const MAX_MICROSECONDS = Number.MAX_SAFE_INTEGER // in the year 2255

/**
 * `timestamp:partition:offset` of fixed width, so that string order is age order; the state script compares it. The
 * timestamp is in microseconds.
 */
export const positionOf = (seconds: number, partition: number, offset: string): string => {
  const microseconds = Math.min(Math.round(seconds * 1_000_000), MAX_MICROSECONDS)
  return `${padded(microseconds, 16)}:${padded(partition, 6)}:${padded(offset, 16)}`
}
