// From a message's bytes to a record for Kafka, or to a dead letter. Pure: any bytes, never a throw.
import { isUtf8 } from 'node:buffer'
import { type DeadLetterReason, encodeMessage, isDeviceId, isJson } from '@iot/shared/contract'

/** Whether bytes that are no text become dead letters, or JSON strings of their base64. */
export const BINARY_PAYLOADS = ['dead-letter', 'base64'] as const
export type BinaryPayloads = (typeof BINARY_PAYLOADS)[number]

/** What a payload may grow to as a JSON string: with the rest of its record it is what Kafka takes by default. */
const MAX_STRING_BYTES = 1_000_000

export type Ingested =
  | { ok: true; deviceId: string; value: string; kind: 'json' | 'text' | 'binary' }
  | { ok: false; reason: DeadLetterReason; deviceId?: string }

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const NOT_IN_TEXT = /[\u0000-\u0008\u000b\u000c\u000e-\u001f]/

/**
 * @param timestamp when the message was received, as it is to stand in the record
 * @param sentBytes the payload's size as it was sent, where only its beginning is here
 */
export function ingest(
  deviceId: string,
  payload: Buffer,
  maxPayloadBytes: number,
  timestamp: string,
  binary: BinaryPayloads = 'dead-letter',
  sentBytes = payload.length,
): Ingested {
  if (!isDeviceId(deviceId)) return { ok: false, reason: 'invalid_device_id' }
  if (payload.length === 0) return { ok: false, reason: 'empty_payload', deviceId }
  if (sentBytes > maxPayloadBytes) return { ok: false, reason: 'too_large', deviceId }
  const text = isUtf8(payload) ? payload.toString() : null
  if (text !== null && isJson(text)) {
    return { ok: true, deviceId, value: encodeMessage(deviceId, text, timestamp), kind: 'json' }
  }
  const isText = text !== null && !NOT_IN_TEXT.test(text) // JSON has none of these characters either
  if (!isText && binary === 'dead-letter') return { ok: false, reason: 'not_utf8', deviceId }
  const json = isText ? JSON.stringify(text) : `"${payload.toString('base64')}"`
  if (Buffer.byteLength(json) > Math.max(MAX_STRING_BYTES, maxPayloadBytes)) {
    return { ok: false, reason: 'too_large', deviceId }
  }
  return { ok: true, deviceId, value: encodeMessage(deviceId, json, timestamp), kind: isText ? 'text' : 'binary' }
}
