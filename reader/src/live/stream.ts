// One client's way along the topic. It has no queue: while its socket is full nothing is taken for it, and all that is kept
// is its position. It reads from the ring while the ring reaches back that far, else it is behind, and what Kafka has is
// handed to it.
//
// Its vector is the ring's own where it has come by all that the ring says ("on the path"); then it shares the frames as
// they are. Whoever comes from another reader or from a catch-up may be further in some partitions: until the ring has
// passed that, it has a vector of its own, and ids made for it.
import { decodeMessage } from '@iot/shared/contract'
import type { FetchedRecord } from '@iot/shared/kafka/fetch'
import { decodePosition, encodeVector, type Offsets } from '@iot/shared/positions'
import { createFrame, eventBytes, type Format, type Frame, heartbeatBytes, updateBytes, vectorAfter } from './frames.js'
import type { Ring } from './ring.js'

const CHUNK_BYTES = 65_536
const HELD_BYTES = 262_144 // of the newest updates, where they are sent from time to time

/** What a client is not told by updates, because Kafka has not got it any more. */
export type Gap =
  | { reason: 'retention'; missed: number; partitions: Record<string, { from: number; to: number }> }
  | { reason: 'topic_changed'; missed: null }
/** Where a client is, looked up in Kafka: `generation` is the ring's at that time. */
export type Place = { topic: string; next: Offsets; gaps: Gap[]; generation: number }

export type StreamOptions = {
  format: Format
  /** Whether a device's updates are wanted. */
  matches(deviceId: string): boolean
  /** Whether its vector is to have the partitions that it begins with and no others. */
  isPartial: boolean
  /** Sends the newest update of each device in this time; 0 sends all of them. */
  everyMs: number
  /** How many updates it wants. */
  count: number
}

export type StreamParts = {
  ring: Ring
  /** Writes to the socket. @returns whether it takes more now */
  write(chunk: Buffer, updates: number): boolean
  /** What else is to be told now, each by `eventBytes`. */
  extras(): Buffer[]
  onDone(): void
}

export type Stream = {
  /** Whether Kafka must be asked for what comes next: `fill` takes it. */
  readonly isBehind: boolean
  /** Whether the ring is another one than it was when this client was located. */
  readonly isLost: boolean
  readonly isFull: boolean
  /** When something was written last. */
  readonly writtenMs: number
  readonly vector: { topic: string; next: Offsets }
  /** Where to go on, and what is missing. */
  place(place: Place): void
  /** Sends what there is. @returns when there is something to do again; Infinity when something new comes */
  pump(nowMs: number): number
  /** The socket takes more. */
  drained(): void
  /** What to fetch, for a client that is behind: the next offset, by partition. */
  wanted(): Map<number, number>
  /** Takes fetched records up to `next`. @returns false when it cannot take more now */
  fill(partition: number, records: FetchedRecord[], next: number): boolean
  heartbeat(nowMs: number): void
}

// longer than other functions: a few lines each, which share the vector
export function createStream(options: StreamOptions, { ring, write, extras, onDone }: StreamParts): Stream {
  const { format, matches, isPartial, everyMs } = options
  let topic = ''
  let own: Map<number, number> | null = new Map() // null while on the path
  let passed: Frame | null = null // then its vector is the one behind this frame, or, at the ring's end, this text
  let reachedEnd = ''
  let generation = -1
  let at: number | null = null // the next frame's number in the ring; null while behind
  let left = options.count
  let chunk: Buffer[] = []
  let chunkBytes = 0
  let chunkUpdates = 0
  let held = new Map<string, Frame>() // the newest of each device, where they are sent from time to time
  let heldBytes = 0
  let releasedMs = Number.NEGATIVE_INFINITY
  let told = '' // the vector that the client has, where updates are held
  let isFull = false
  let isDone = false
  let writtenMs = 0

  const ofRing = () => (passed ? vectorAfter(passed) : reachedEnd)
  const vectorText = () => (own ? encodeVector({ topic, next: own }) : ofRing())
  const nextOf = (partition: number) => own?.get(partition) ?? 0
  const concerns = (partition: number) => !isPartial || own?.has(partition) === true

  const append = (bytes: Buffer, updates: number) => {
    chunk.push(bytes)
    chunkBytes += bytes.length
    chunkUpdates += updates
  }

  const flush = (nowMs: number) => {
    if (chunk.length === 0) return
    const bytes = chunk.length === 1 ? (chunk[0] as Buffer) : Buffer.concat(chunk, chunkBytes)
    const updates = chunkUpdates
    chunk = []
    chunkBytes = 0
    chunkUpdates = 0
    writtenMs = nowMs
    isFull = !write(bytes, updates)
    if (isDone) onDone()
  }

  /** All but the last leave the client where it was, so that one that is cut between them gets the others again. */
  const release = (nowMs: number) => {
    const frames = [...held.values()].slice(0, left)
    left -= frames.length
    isDone = left === 0
    const reached = isDone ? told : vectorText()
    frames.forEach((frame, index) => {
      append(updateBytes(frame, format, index === frames.length - 1 ? reached : told), 1)
    })
    told = reached
    held = new Map()
    heldBytes = 0
    releasedMs = nowMs
  }

  /** @param after the client's vector behind it, where that is not the frame's */
  const add = (frame: Frame, after: string | undefined, nowMs: number) => {
    if (everyMs === 0) {
      append(updateBytes(frame, format, after), 1)
      if (--left === 0) isDone = true
      if (isDone || chunkBytes >= CHUNK_BYTES) flush(nowMs)
      return
    }
    const older = held.get(frame.deviceId)
    if (older) heldBytes -= older.sse.length
    held.delete(frame.deviceId)
    held.set(frame.deviceId, frame)
    heldBytes += frame.sse.length
    if (heldBytes < HELD_BYTES && held.size < left) return
    release(nowMs)
    flush(nowMs)
  }

  const fall = () => {
    own ??= new Map(decodePosition(ofRing())?.vector?.next)
    at = null
  }

  const join = () => {
    if (generation !== ring.generation || topic !== ring.topic) return
    for (const [partition, start] of ring.starts) if (concerns(partition) && nextOf(partition) < start) return
    at = ring.base
  }

  const takeOne = (frame: Frame, nowMs: number) => {
    const { partition, offset } = frame
    if (own === null) passed = frame
    else {
      if (!concerns(partition) || offset < nextOf(partition)) return
      own.set(partition, offset + 1)
    }
    if (matches(frame.deviceId)) add(frame, own ? vectorText() : undefined, nowMs)
  }

  /** At the end of the ring: all below its ends was taken or passed over. */
  const settle = () => {
    if (own !== null) {
      let isAhead = false
      for (const [partition, end] of ring.ends) {
        if (!concerns(partition)) continue
        if (nextOf(partition) > end) isAhead = true
        else own.set(partition, end)
      }
      if (isAhead || isPartial) return
    }
    own = null
    passed = null
    reachedEnd = ring.vector
  }

  const takeFromRing = (nowMs: number) => {
    if (at !== null && at < ring.base) fall()
    if (at === null) join()
    while (at !== null && at < ring.end && !isFull && !isDone) takeOne(ring.at(at++), nowMs)
    if (at === ring.end && !isFull) settle()
  }

  return {
    get isBehind() {
      return at === null
    },
    get isLost() {
      return generation !== ring.generation
    },
    get isFull() {
      return isFull
    },
    get writtenMs() {
      return writtenMs
    },
    get vector() {
      if (own) return { topic, next: own }
      return decodePosition(ofRing())?.vector ?? { topic, next: new Map() }
    },
    place(place) {
      if (held.size > 0) release(performance.now())
      topic = place.topic
      own = new Map(place.next)
      generation = place.generation
      at = null
      const reached = vectorText()
      place.gaps.forEach((gap, index) => {
        const isLast = index === place.gaps.length - 1
        append(eventBytes(format, 'gap', JSON.stringify(gap), isLast ? reached : undefined), 0)
      })
      told = reached
    },
    pump(nowMs) {
      if (isFull) return Number.POSITIVE_INFINITY
      if (isDone) {
        flush(nowMs)
        return Number.POSITIVE_INFINITY
      }
      for (const bytes of extras()) append(bytes, 0)
      takeFromRing(nowMs)
      const dueMs = held.size > 0 ? releasedMs + everyMs : Number.POSITIVE_INFINITY
      if (dueMs <= nowMs) release(nowMs)
      if (!isFull) flush(nowMs)
      return dueMs <= nowMs ? Number.POSITIVE_INFINITY : dueMs
    },
    drained() {
      isFull = false
    },
    wanted() {
      const found = new Map<number, number>()
      for (const [partition, end] of ring.ends)
        if (concerns(partition) && nextOf(partition) < end) found.set(partition, nextOf(partition))
      return found
    },
    fill(partition, records, next) {
      const nowMs = performance.now()
      if (own === null) throw new Error('a client on the path is not behind')
      for (const { key, value, offset: text } of records) {
        const offset = Number(text)
        if (offset < nextOf(partition)) continue
        if (isFull || isDone) return false
        own.set(partition, offset + 1)
        if (key === null || !matches(key.toString())) continue
        const message = decodeMessage(key, value)
        if (message) add(createFrame(partition, offset, message, vectorText()), undefined, nowMs)
      }
      own.set(partition, Math.max(next, nextOf(partition)))
      return !isFull && !isDone
    },
    heartbeat(nowMs) {
      if (isFull || isDone) return
      append(heartbeatBytes(format, held.size > 0 ? told : vectorText()), 0)
      flush(nowMs)
    },
  }
}
