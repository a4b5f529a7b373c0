// From an MQTT message to a record for Kafka, or to a dead letter. Pure: any bytes on any topic, never a throw.
import { isUtf8 } from 'node:buffer'
import { type DeadLetterReason, encodeMessage, isDeviceId, isJson } from '@iot/shared/contract'

export type Ingested =
  | { ok: true; deviceId: string; value: string }
  | { ok: false; reason: DeadLetterReason; deviceId?: string }

/** The device id in `{prefix}/{device_id}/{kind}`, checked or not: the level between the two. */
export const deviceIdOf = (topic: string, prefix: string): string =>
  topic.slice(prefix.length + 1, topic.lastIndexOf('/'))

/** @param timestamp when the message was received, Unix time in whole seconds */
export function ingest(deviceId: string, payload: Buffer, maxPayloadBytes: number, timestamp: number): Ingested {
  if (!isDeviceId(deviceId)) return { ok: false, reason: 'invalid_device_id' }
  if (payload.length === 0) return { ok: false, reason: 'empty_payload', deviceId }
  if (payload.length > maxPayloadBytes) return { ok: false, reason: 'too_large', deviceId }
  if (!isUtf8(payload)) return { ok: false, reason: 'not_utf8', deviceId }
  const text = payload.toString()
  return { ok: true, deviceId, value: encodeMessage(deviceId, isJson(text) ? text : JSON.stringify(text), timestamp) }
}
