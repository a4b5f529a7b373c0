// What goes out to Kafka: readings and dead letters as items of the send queue. What Kafka refuses for its size goes out
// as something smaller: a reading as a dead letter, and that is cut until it fits. Pure: the clock is handed in.
import { type DeadLetter, deadLetterTopic } from './contract.js'
import type { KafkaRecord } from './kafka/produce-request.js'
import type { QueueItem } from './send-queue.js'

const HEADER_BYTES = 300
const SOURCE_LENGTH = 1000

/** A record for `iot-data`; `source` and `original` (the payload as it came) are what its dead letter would carry. */
export type OutgoingRecord = { deviceId: string; value: string; source: string; original: Buffer }

/** What is written to Kafka, and which of the two it is. */
export type Outgoing = KafkaRecord & { reading?: OutgoingRecord; letter?: DeadLetter }

export type Packer = {
  reading(record: OutgoingRecord, onStored: () => void): QueueItem<Outgoing>
  letter(letter: DeadLetter, onStored: () => void): QueueItem<Outgoing>
  /** What takes the place of an item that is too large by itself. */
  smaller(item: QueueItem<Outgoing>): QueueItem<Outgoing>
}

/**
 * @param options.service the name written to the header `service` of dead letters
 * @param options.maxBytes values of dead letters are cut to this size at most
 * @param options.nowMs Unix time in milliseconds
 */
export function createPacker(options: {
  topic: string
  service: string
  maxBytes: number
  nowMs: () => number
}): Packer {
  const { topic, service, maxBytes, nowMs } = options
  const letterTopic = deadLetterTopic(topic)
  let cutBytes = maxBytes // what is kept of a dead letter that Kafka does not take whole

  const pack = (letter: DeadLetter, value: Buffer | null, onStored: () => void): QueueItem<Outgoing> => {
    const headers: Record<string, string> = {
      reason: letter.reason,
      source: letter.source.slice(0, SOURCE_LENGTH),
      service,
      timestamp: String(Math.floor(nowMs() / 1000)),
    }
    const sentBytes = letter.valueBytes ?? letter.value?.length ?? 0
    if (value && value.length < sentBytes) headers.truncated_from = String(sentBytes)
    const record = { key: letter.deviceId ?? null, value, headers, letter }
    return { topic: letterTopic, key: null, record, bytes: (value?.length ?? 0) + HEADER_BYTES, onStored }
  }
  const cut = (letter: DeadLetter) => letter.value?.subarray(0, cutBytes) ?? null
  const packer: Packer = {
    reading(reading, onStored) {
      const { deviceId, value } = reading
      const record = { key: deviceId, value, reading }
      return { topic, key: deviceId, record, bytes: Buffer.byteLength(value) + HEADER_BYTES, onStored }
    },
    letter(letter, onStored) {
      const isLarge = (letter.value?.length ?? 0) > maxBytes
      return pack(letter, isLarge ? cut(letter) : letter.value, onStored)
    },
    smaller({ record: { reading, letter }, onStored }) {
      if (reading) {
        const { source, deviceId, original } = reading
        return packer.letter({ reason: 'too_large', source, deviceId, value: original }, onStored)
      }
      if (!letter) throw new Error('a record is neither a reading nor a dead letter')
      cutBytes = Math.floor(Math.min(cutBytes, letter.value?.length ?? 0) / 2)
      return pack(letter, cut(letter), onStored)
    },
  }
  return packer
}
