// The newest frames of the topic, in the order in which they were read, bounded in bytes; and the vectors between which they
// lie. A reader of the ring holds no frames, only the number of its next one. Pure.
import type { DeviceMessage } from '@iot/shared/contract'
import { encodeVector, type Offsets } from '@iot/shared/positions'
import { createFrame, type Frame } from './frames.js'

/** A topic of more partitions has vectors too long for an id: whoever reads it has a vector of some of them. */
export const MAX_WHOLE_PARTITIONS = 500
const FRAME_BYTES = 300 // of a frame beside its bytes, as measured
const DROP_SHARE = 8 // so many frames go together

export type Ring = {
  /** Another one whenever vectors of before mean nothing any more: they must be located anew. */
  readonly generation: number
  /** The number of the oldest frame, and of the one that comes next. */
  readonly base: number
  readonly end: number
  /** Which topic this is. */
  readonly topic: string
  /** All records from here on, up to `ends`, are in the ring. */
  readonly starts: Offsets
  readonly ends: Offsets
  /** `ends` as text; '' where there are too many partitions. */
  readonly vector: string
  at(number: number): Frame
  push(partition: number, offset: number, message: DeviceMessage): void
  /** The partition was read up to an offset. */
  advance(partition: number, next: number): void
  /** Partitions were added. */
  grow(count: number): void
  /** Begins anew, empty: nobody who read it before finds the place again. */
  reset(next: Offsets, topic: string): void
}

export function createRing(maxBytes: number): Ring {
  let frames: Frame[] = []
  let base = 0
  let bytes = 0
  let generation = 0
  let topic = ''
  let starts = new Map<number, number>()
  let ends = new Map<number, number>()
  let vector: string | null = null

  const encoded = () => {
    vector ??= ends.size > MAX_WHOLE_PARTITIONS ? '' : encodeVector({ topic, next: ends })
    return vector
  }

  const dropOldest = () => {
    let count = 0
    for (const target = maxBytes * (1 - 1 / DROP_SHARE); bytes > target && count < frames.length; count++) {
      const { partition, offset, sse } = frames[count] as Frame
      bytes -= sse.length + FRAME_BYTES
      starts.set(partition, offset + 1)
    }
    frames.splice(0, count)
    base += count
  }

  return {
    get generation() {
      return generation
    },
    get base() {
      return base
    },
    get end() {
      return base + frames.length
    },
    get topic() {
      return topic
    },
    get starts() {
      return starts
    },
    get ends() {
      return ends
    },
    get vector() {
      return encoded()
    },
    at(number) {
      const frame = frames[number - base]
      if (!frame) throw new Error(`the ring has no frame ${number}`)
      return frame
    },
    push(partition, offset, message) {
      ends.set(partition, offset + 1)
      vector = null
      const frame = createFrame(partition, offset, message, encoded())
      frames.push(frame)
      bytes += frame.sse.length + FRAME_BYTES
      if (bytes > maxBytes) dropOldest()
    },
    advance(partition, next) {
      if (next <= (ends.get(partition) ?? 0)) return
      ends.set(partition, next)
      vector = null
    },
    grow(count) {
      for (let partition = ends.size; partition < count; partition++) {
        starts.set(partition, 0)
        ends.set(partition, 0)
      }
      vector = null
    },
    reset(next, name) {
      generation++
      base += frames.length + 1 // a number that no frame has
      frames = []
      bytes = 0
      topic = name
      starts = new Map(next)
      ends = new Map(next)
      vector = null
    },
  }
}
