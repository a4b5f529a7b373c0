// What stands between the socket and MQTT.js's parser, which buffers a packet whole and reads properties byte by byte: a
// large PUBLISH reaches it without its properties and with its payload cut, and no other packet may be large. Small
// packets pass untouched. Pure: bytes in, bytes out; it reads fixed headers, and the head of a large PUBLISH.

const PUBLISH = 3
const QOS_BITS = 0b0110

export type SizeLimit = {
  protocolVersion: 4 | 5
  /** A payload of this size or more is cut to it, and told to `onCut`. */
  keptBytes: number
  /** A packet whose length is at most this passes unread. */
  passBytes: number
  /** A payload was cut to `keptBytes`; called in the order in which they reach the parser. @param sentBytes its size */
  onCut: (sentBytes: number) => void
  /** The broker breaks the protocol: nothing more is passed on. */
  onBroken: (problem: string) => void
}

/** Reads a length of MQTT (1 to 4 bytes, 7 bits each) at `at`: null when it is not whole, -1 when it is not one. */
function readLength(bytes: Buffer, at: number): { value: number; bytes: number } | null | -1 {
  let value = 0
  for (let index = 0; index < 4; index++) {
    const byte = bytes[at + index]
    if (byte === undefined) return null
    value += (byte & 0x7f) * 128 ** index
    if (byte < 0x80) return { value, bytes: index + 1 }
  }
  return -1
}

function writeLength(value: number): number[] {
  const rest = Math.floor(value / 128)
  return rest === 0 ? [value] : [(value % 128) | 0x80, ...writeLength(rest)]
}

/** The parts of a PUBLISH before its payload, in bytes; null when they are not all there yet. */
type Head = { topicAndId: number; properties: number }

/** @param at where the packet's fixed header ends */
function readHead(bytes: Buffer, at: number, hasId: boolean, protocolVersion: 4 | 5): Head | null | -1 {
  if (bytes.length < at + 2) return null
  const topicAndId = 2 + bytes.readUInt16BE(at) + (hasId ? 2 : 0)
  if (protocolVersion === 4) return { topicAndId, properties: 0 }
  const properties = readLength(bytes, at + topicAndId)
  if (properties === null || properties === -1) return properties
  return { topicAndId, properties: properties.bytes + properties.value }
}

/**
 * Returns a function that takes what arrives, in pieces of any size, and hands on what the parser may see.
 * @param emit is called for each piece that goes on, and returns whether more is wanted; so does the function itself
 */
export function createSizeLimit(limit: SizeLimit): (chunk: Buffer, emit: (bytes: Buffer) => boolean) => boolean {
  const { protocolVersion, keptBytes, passBytes } = limit
  let incomplete: Buffer | undefined // the beginning of a packet whose head has not arrived whole
  let skipping = 0 // of the packet under way: bytes left out,
  let passing = 0 // then bytes handed on,
  let dropping = 0 // then bytes left out
  let isBroken = false

  return (received, emit) => {
    if (isBroken) return true
    const chunk = incomplete ? Buffer.concat([incomplete, received]) : received
    incomplete = undefined
    let isMoreWanted = true
    let from = 0 // up to `at` the bytes go on as they are
    let at = 0
    const hand = (upTo: number) => {
      if (upTo > from) isMoreWanted = emit(upTo - from === chunk.length ? chunk : chunk.subarray(from, upTo))
    }
    const leaveOut = (bytes: number) => {
      const step = Math.min(bytes, chunk.length - at)
      hand(at)
      at += step
      from = at
      return step
    }
    const broken = (problem: string) => {
      isBroken = true
      limit.onBroken(problem)
      return isMoreWanted
    }

    while (at < chunk.length) {
      if (skipping > 0) {
        skipping -= leaveOut(skipping)
        continue
      }
      if (passing > 0) {
        const step = Math.min(passing, chunk.length - at)
        at += step
        passing -= step
        continue
      }
      if (dropping > 0) {
        dropping -= leaveOut(dropping)
        continue
      }
      const first = chunk[at] as number
      const short = chunk[at + 1]
      if (short !== undefined && short < 0x80) {
        passing = 2 + short // nearly all packets
        continue
      }
      const length = readLength(chunk, at + 1)
      if (length === -1) return broken('a packet without a valid length')
      if (length !== null && length.value <= passBytes) {
        passing = 1 + length.bytes + length.value
        continue
      }
      const head = length && readHead(chunk, at + 1 + length.bytes, (first & QOS_BITS) !== 0, protocolVersion)
      if (length !== null && first >> 4 !== PUBLISH)
        return broken(`a packet of type ${first >> 4} of ${length.value} bytes`)
      if (head === -1) return broken('properties without a valid length')
      if (length === null || head === null || chunk.length < at + 1 + length.bytes + head.topicAndId) {
        hand(at)
        incomplete = chunk.subarray(at)
        return isMoreWanted
      }
      const payload = length.value - head.topicAndId - head.properties
      if (payload < 0) return broken('a PUBLISH whose parts are longer than the whole')
      if (payload < keptBytes && head.properties <= 1) {
        passing = 1 + length.bytes + length.value
        continue
      }
      if (payload >= keptBytes) limit.onCut(payload)
      passing = Math.min(payload, keptBytes)
      dropping = payload - passing
      skipping = head.properties
      const noProperties = protocolVersion === 5 ? [0] : []
      hand(at)
      at += 1 + length.bytes
      const topicAndId = chunk.subarray(at, at + head.topicAndId)
      const newLength = writeLength(head.topicAndId + noProperties.length + passing)
      isMoreWanted = emit(Buffer.concat([Buffer.from([first, ...newLength]), topicAndId, Buffer.from(noProperties)]))
      at += head.topicAndId
      from = at
    }
    hand(at)
    return isMoreWanted
  }
}
