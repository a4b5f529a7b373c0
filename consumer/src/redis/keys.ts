// The keys that are the consumer's own, and what it keeps in them. Pure.
import { lastStateKey } from '@iot/shared/contract'

/**
 * All keys of the consumer's own begin otherwise than a device's, so that no device id can name one of them.
 * The CRC16 of this prefix is 0 (`padk` makes it so): put before a key, it leaves the key in its Redis Cluster slot,
 * whatever braces the key holds.
 */
const GUARD = 'iot-consumer:guard:padk:'

/** Holds the position of what last_state shows; in the slot of the device's last_state key. */
export const guardKey = (deviceId: string): string => GUARD + lastStateKey(deviceId)

/** Written to learn whether Redis takes writes; covered by every ACL that covers the guards. */
export const PROBE_KEY = `${GUARD}probe`

/** WAITAOF waits for the writes of its own connection, and so for all before them: this is that write. */
export const FSYNC_KEY = 'iot-consumer:fsync'

const padded = (value: string | number, digits: number) => String(value).padStart(digits, '0')

/** `timestamp:partition:offset` of fixed width, so that string order is age order; the state script compares it. */
export const positionOf = (timestamp: number, partition: number, offset: string): string =>
  `${padded(timestamp, 16)}:${padded(partition, 6)}:${padded(offset, 16)}`
