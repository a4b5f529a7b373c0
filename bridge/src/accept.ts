// What becomes of a message that was received: a record, a dead letter, or nothing.
import type { Publisher } from '@iot/shared/publisher'
import { Counter } from 'prom-client'
import type { Message } from './ack-window.js'
import { type BinaryPayloads, ingest } from './ingest.js'
import { parseTopic } from './topics.js'

const ignored = new Counter({
  name: 'iot_mqtt_ignored_messages_total',
  help: 'messages that were acknowledged and are neither records nor dead letters',
  labelNames: ['reason'],
})
for (const reason of ['retained', 'unexpected_topic']) ignored.inc({ reason }, 0) // so that the first is an increase
const texts = new Counter({
  name: 'iot_text_payloads_total',
  help: 'payloads that were text but not JSON, stored as JSON strings',
})
const binaries = new Counter({
  name: 'iot_binary_payloads_total',
  help: 'payloads that were not text, stored as base64',
})

/**
 * Returns a function that stores a message, and calls `stored` once: when Kafka has its record or dead letter, or at
 * once where there is nothing to store.
 */
export function createAccept(
  options: {
    prefix: string
    maxPayloadBytes: number
    binary: BinaryPayloads
    /** The time of a record that is made now. */
    timestamp: () => string
    /** Called for each reading of a device, where readings are signs of life. */
    onReading?: (deviceId: string) => unknown
  },
  publisher: Pick<Publisher, 'publish' | 'deadLetter'>,
): (message: Message, stored: () => void) => void {
  const { prefix, maxPayloadBytes, binary, timestamp, onReading } = options

  const ignore = (reason: string, stored: () => void) => {
    ignored.inc({ reason })
    stored()
  }

  return ({ topic: source, payload, isRetained, sentBytes }, stored) => {
    const parsed = parseTopic(source, prefix)
    // such as what an old subscription of the session still matches
    if (parsed?.kind !== 'data') return ignore('unexpected_topic', stored)
    if (isRetained) return ignore('retained', stored) // a replay of unknown age
    const result = ingest(parsed.deviceId, payload, maxPayloadBytes, timestamp(), binary, sentBytes)
    if (onReading && result.deviceId !== undefined) onReading(result.deviceId)
    if (!result.ok) {
      publisher.deadLetter({ ...result, source, value: payload, valueBytes: sentBytes }, stored)
      return
    }
    if (result.kind === 'text') texts.inc()
    else if (result.kind === 'binary') binaries.inc()
    publisher.publish({ deviceId: result.deviceId, value: result.value, source, original: payload }, stored)
  }
}
