// The newest dead letters, read from the end of their topic backwards.
import { isUtf8 } from 'node:buffer'
import { Problem } from '@iot/shared/http/problem'
import type { KafkaConnections } from '@iot/shared/kafka/connections'
import { type FetchedRecord, fetchRecords } from '@iot/shared/kafka/fetch'
import { boundsOfTopic, findTopic, isMissing, offsetsAt } from '@iot/shared/kafka/topic-state'

const PARTITION = 0 // all dead letters are in it
const SHOWN_BYTES = 4096 // of a value
const SHOWN_CHARS = 1024 // of a header or a key: whoever can write to the topic chooses them
const STEP = 200
const MAX_LOOKED_AT = 10_000
const MAX_READ_BYTES = 32_000_000
const FETCH_BYTES = 1_000_000
const MAX_AT_ONCE = 4
const TIMESTAMP = /^(0|[1-9]\d{0,11})(\.\d{6})?$/

export type Letter = {
  offset: number
  timestamp: number
  reason: string
  source: string
  device_id: string | null
  bytes: number
  text?: string
  base64?: string
}
/** Newest first; those that were looked at, of all that are kept. */
export type Letters = { letters: Letter[]; looked_at: number; total: number }

export type DeadLetters = {
  /** @throws {Problem} BUSY; or what keeps Kafka from answering */
  newest(limit: number, reason?: string): Promise<Letters>
  /** How many there were from a time on, in Unix milliseconds. @throws when Kafka does not answer */
  countSince(timeMs: number): Promise<number>
}

export function createDeadLetters(connections: KafkaConnections, topic: string): DeadLetters {
  let atOnce = 0

  /** Null where there has not been any dead letter yet. */
  const look = async () => {
    const state = await findTopic(connections, topic).catch((error) => {
      if (isMissing(error)) return null
      throw error
    })
    if (state === null) return null
    const bounds = (await boundsOfTopic(connections, topic, state)).get(PARTITION)
    const leader = state.partitions[PARTITION]?.leader
    if (!bounds || leader === undefined || leader === null) throw new Error(`no broker leads ${topic}`)
    return { state, leader, ...bounds }
  }

  const read = async (leader: number, offset: number) => {
    const partitions = [{ partition: PARTITION, offset }]
    const options = { topic, partitions, maxWaitMs: 0, maxBytes: FETCH_BYTES, detailed: true }
    const [found] = (await fetchRecords(connections, leader, options)).partitions
    if (!found || found.errorCode !== 0) throw new Error(`${topic} cannot be read now`)
    return found
  }

  const newest = async (limit: number, reason: string | undefined): Promise<Letters> => {
    const found = await look()
    if (found === null) return { letters: [], looked_at: 0, total: 0 }
    const { leader, low, high } = found
    const letters: Letter[] = []
    let readBytes = 0
    let end = high
    while (end > low && letters.length < limit && high - end < MAX_LOOKED_AT && readBytes < MAX_READ_BYTES) {
      const start = Math.max(low, end - STEP)
      const piece: Letter[] = []
      for (let at = start; at < end; ) {
        const { records, next } = await read(leader, at)
        const wanted = records.filter(({ offset }) => Number(offset) >= at && Number(offset) < end)
        for (const { value } of wanted) readBytes += value?.length ?? 0
        piece.push(...wanted.map(asLetter).filter((letter) => reason === undefined || letter.reason === reason))
        at = next ?? end
      }
      letters.push(...piece.reverse())
      end = start
    }
    return { letters: letters.slice(0, limit), looked_at: high - end, total: high - low }
  }

  return {
    async newest(limit, reason) {
      if (atOnce >= MAX_AT_ONCE) throw new Problem(503, 'BUSY', 'Dead letters are being read for others: try again')
      atOnce++
      return newest(limit, reason).finally(() => atOnce--)
    },
    async countSince(timeMs) {
      const found = await look()
      if (found === null) return 0
      const since = (await offsetsAt(connections, topic, found.state, timeMs)).get(PARTITION)
      if (since === undefined) throw new Error(`no broker leads ${topic}`)
      return since === null ? 0 : found.high - since
    },
  }
}

const shown = (text: string) => (text.length > SHOWN_CHARS ? `${text.slice(0, SHOWN_CHARS)}…` : text)

/** A record of the topic as it is shown. */
export function asLetter({ key, value, offset, details }: FetchedRecord): Letter {
  const header = (name: string) => details?.headers.get(name)?.toString() ?? ''
  const said = header('timestamp')
  return {
    offset: Number(offset),
    timestamp: TIMESTAMP.test(said) ? Number(said) : Math.max(0, Math.floor((details?.timestampMs ?? 0) / 1000)),
    reason: shown(header('reason')),
    source: shown(header('source')),
    device_id: key === null ? null : shown(key.toString()),
    bytes: Number(header('truncated_from')) || (value?.length ?? 0),
    ...contentOf(value ?? Buffer.alloc(0)),
  }
}

/** Its beginning, as text where it is text; a character is not cut through. */
function contentOf(value: Buffer): { text: string } | { base64: string } {
  const start = value.subarray(0, SHOWN_BYTES)
  for (let length = start.length; length >= Math.max(start.length - 3, 0); length--) {
    const text = start.subarray(0, length)
    if (isUtf8(text) && (length === start.length || start.length < value.length)) return { text: text.toString() }
  }
  return { base64: start.toString('base64') }
}
