// What the services agree on: names of topics and keys, the message on `iot-data`, the dead letter.
// Pure: bytes in, values out; nothing here throws on any input.
import { isUtf8 } from 'node:buffer'

/** Why a message was dead-lettered. A closed list, written to the header `reason`. */
export const DEAD_LETTER_REASONS = [
  'invalid_device_id',
  'empty_payload',
  'not_utf8',
  'too_large',
  'invalid_message',
  'redis_rejected',
] as const
export type DeadLetterReason = (typeof DEAD_LETTER_REASONS)[number]

/**
 * A device's message as it stands on Kafka. `payload` is the payload's own JSON text; `timestamp` is Unix time in seconds
 * as it is written there, with six decimals or none, and `seconds` the same as a number.
 */
export type DeviceMessage = { deviceId: string; payload: string; timestamp: string; seconds: number; text: string }

const MAX_DEVICE_ID_BYTES = 256
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const NOT_IN_DEVICE_ID = /[\u0000-\u001f\u007f-\u009f/+#]|\p{Cs}/u

/** Whether `id` can name a device: one topic level of 1 to 256 bytes without control characters or wildcards. */
export function isDeviceId(id: string): boolean {
  return id.length > 0 && Buffer.byteLength(id) <= MAX_DEVICE_ID_BYTES && !NOT_IN_DEVICE_ID.test(id)
}

/** The topic that takes what cannot be processed. */
export const deadLetterTopic = (topic: string): string => `${topic}-dlq`

export const lastStateKey = (deviceId: string): string => `device:last_state:${deviceId}`
export const historyKey = (deviceId: string): string => `device:history:${deviceId}`
export const updatesChannel = (deviceId: string): string => `device-updates:${deviceId}`

/**
 * Begins otherwise than a device's keys, so that no device id can name a guard. Its CRC16 is 0 (`hgi` makes it so): put
 * before a key, it leaves the key in its Redis Cluster slot, whatever braces the key holds. It is as short as that
 * allows, for Redis hashes the whole key two times for each device and batch.
 */
export const GUARD = 'guardhgi:'

/** Holds the position of what last_state shows; in the slot of the device's last_state key. */
export const guardKey = (deviceId: string): string => GUARD + lastStateKey(deviceId)

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

/** The partition and offset of a position, as `3:4711`; null where there is none. */
export function recordOf(position: string | null): string | null {
  const [, partition, offset] = /^\d{16}:(\d{6}):(\d{16})$/.exec(position ?? '') ?? []
  return partition === undefined ? null : `${Number(partition)}:${Number(offset)}`
}

const head = (deviceId: string) => `{"device_id":${JSON.stringify(deviceId)},"payload":`
const TIMESTAMP = ',"timestamp":'
const TIMESTAMP_FORM = /^(0|[1-9]\d*)(\.\d{6})?$/

/** The value on `iot-data`. `payload` is JSON text and goes in as it is, so that its numbers keep every digit. */
export function encodeMessage(deviceId: string, payload: string, timestamp: string): string {
  return `${head(deviceId)}${payload}${TIMESTAMP}${timestamp}}`
}

/**
 * Reads a record of `iot-data`, or answers null when it is not of the contract's form (some other producer's).
 * The payload is cut out of the text, never parsed and printed again.
 */
export function decodeMessage(key: Buffer | null, value: Buffer | null): DeviceMessage | null {
  if (key === null || value === null || !isUtf8(key) || !isUtf8(value)) return null
  const deviceId = key.toString()
  if (!isDeviceId(deviceId)) return null
  const text = value.toString()
  const start = head(deviceId)
  const end = text.lastIndexOf(TIMESTAMP)
  if (!text.startsWith(start) || end < start.length) return null
  const timestamp = text.slice(end + TIMESTAMP.length, -1)
  const seconds = Number(timestamp)
  if (!text.endsWith('}') || !TIMESTAMP_FORM.test(timestamp) || !Number.isSafeInteger(Math.floor(seconds))) return null
  const payload = text.slice(start.length, end)
  return isJson(payload) ? { deviceId, payload, timestamp, seconds, text } : null
}

/** Whether `text` is one JSON text (RFC 8259), white space around it allowed. */
export function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** What is known of a message that cannot be processed. `source` is an MQTT topic or `topic/partition@offset`. */
export type DeadLetter = {
  reason: DeadLetterReason
  source: string
  deviceId?: string | undefined
  value: Buffer | null
  /** The size of what was sent, where `value` is only its beginning. */
  valueBytes?: number
}
