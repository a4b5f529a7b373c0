// What a hostile peer must know of a protocol: where one of its packets ends, and what no server of it would say.
import type { Random } from './random.js'

export type PeerName = 'mqtt' | 'kafka' | 'redis'

export type Protocol = {
  name: PeerName
  /** How many bytes the packet has that `bytes` begins with; null while that cannot be known. */
  lengthOf(bytes: Buffer): number | null
  /** A packet that no server would send at this moment, or at all. */
  strange(random: Random): Buffer
  /** The beginning of a packet that announces a huge size. */
  huge(random: Random): Buffer
  /**
   * Whether real answers may follow what is damaged: Kafka's are told apart by their numbers, and both Kafka and Redis do
   * what they are asked whatever the answer looks like. A reading of MQTT that is left out, and one behind it that is
   * delivered, would be in another order by the broker's own word.
   */
  goesOn: boolean
  /** Whether four bytes of the answer to a request may become others: not where a client has to believe what it is told. */
  mayOverwrite(request: number | undefined): boolean
}

const bytesOf = (...bytes: number[]) => Buffer.from(bytes)

function varInt(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varInt(value >>> 7)]
}

const text = (value: string) => Buffer.concat([bytesOf(value.length >> 8, value.length & 0xff), Buffer.from(value)])
const packet = (first: number, ...parts: Buffer[]) => {
  const body = Buffer.concat(parts)
  return Buffer.concat([bytesOf(first, ...varInt(body.length)), body])
}

const mqtt: Protocol = {
  name: 'mqtt',
  goesOn: false,
  lengthOf(bytes) {
    let value = 0
    for (let index = 0; index < 4; index++) {
      const byte = bytes[1 + index]
      if (byte === undefined) return null
      value += (byte & 0x7f) * 128 ** index
      if (byte < 0x80) return 2 + index + value
    }
    return bytes.length // no length: what follows cannot be told apart
  },
  strange(random) {
    const id = random.bytes(2)
    return random.pick<() => Buffer>([
      () => packet(0x32, text('a/b/data'), bytesOf(0, 0, 0), random.bytes(20)), // packet id 0
      () => packet(0x36, text('a/b/data'), id, bytesOf(0)), // QoS 3
      () => packet(0x3a, text('a/b/data'), id, bytesOf(0), random.bytes(20)), // sent again, and never sent before
      () => packet(0x34, text('a/b/data'), id, bytesOf(0), random.bytes(20)), // QoS 2
      () => packet(0x32, text('#/+/data'), id, bytesOf(0)),
      () => packet(0x32, text(''), id, bytesOf(3, 0x23, 0xff, 0xff)), // an alias that was never given
      () => packet(0x32, bytesOf(0, 3, 0xff, 0xfe, 0x00), id, bytesOf(0)), // a topic that is no text
      () => packet(0x32, bytesOf(0xff, 0xff), random.bytes(30)), // a topic longer than its packet
      () => packet(0x30, text('a/b/data'), bytesOf(0xff, 0xff, 0xff, 0x7f)), // properties longer than their packet
      () => packet(0x30, text('a/b/data'), bytesOf(2, 0x26, 0)), // a property that is cut
      () => packet(random.pick([0x40, 0x50, 0x62, 0x70, 0x90, 0xb0]), id, random.bytes(random.below(4))), // unasked
      () => packet(0x20, bytesOf(random.below(2), random.below(256), 0)), // a second CONNACK
      () => packet(0xd0, random.bytes(3)),
      () => packet(0xe0, random.bytes(random.below(6))), // DISCONNECT
      () => packet(0xf0, random.bytes(random.below(6))), // AUTH
      () => packet(random.below(256), random.bytes(random.below(40))),
      () => bytesOf(0x30, 0xff, 0xff, 0xff, 0xff, 0xff), // a length without an end
    ])()
  },
  huge: () => Buffer.concat([bytesOf(0x30, 0xff, 0xff, 0xff, 0x7f), text('a/b/data')]), // 256 MB
  mayOverwrite: () => true,
}

const OFFSET_FETCH = 9
const LIST_OFFSETS = 2

const int32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value | 0)
  return bytes
}

const kafka: Protocol = {
  name: 'kafka',
  goesOn: true,
  lengthOf: (bytes) => (bytes.length < 4 ? null : 4 + Math.max(bytes.readInt32BE(0), 0)),
  strange: (random) =>
    random.pick<() => Buffer>([
      () => int32(0),
      () => int32(-1),
      () => Buffer.concat([int32(3), random.bytes(3)]), // too short for a correlation id
      () => Buffer.concat([int32(4), int32(random.below(1000))]), // and nothing else
      () => Buffer.concat([int32(200), int32(random.below(1000)), random.bytes(196)]),
      () => Buffer.from('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n'),
    ])(),
  huge: (random) => int32(random.pick([0x7fffffff, 104_857_600, 50_000_000])),
  mayOverwrite: (request) => request !== OFFSET_FETCH && request !== LIST_OFFSETS,
}

const line = (bytes: Buffer, at: number) => bytes.indexOf('\r\n', at)

/** Where the RESP reply that begins at `at` ends; null while it is not whole. */
function endOfReply(bytes: Buffer, at: number): number | null {
  const end = line(bytes, at)
  if (end === -1) return null
  const count = Number(bytes.toString('latin1', at + 1, end))
  const kind = String.fromCharCode(bytes[at] as number)
  if (kind === '$') return count < 0 ? end + 2 : end + 4 + count
  let next: number | null = end + 2
  if (!'*%~>'.includes(kind)) return next
  const items = kind === '%' ? 2 * count : count
  for (let item = 0; item < items && next !== null; item++) next = endOfReply(bytes, next)
  return next
}

const redis: Protocol = {
  name: 'redis',
  goesOn: true,
  lengthOf: (bytes) => endOfReply(bytes, 0),
  strange: (random) =>
    random.pick<() => Buffer>([
      () => Buffer.from('$-1\r\n'),
      () => Buffer.from('_\r\n'),
      () => Buffer.from('*-1\r\n'),
      () => Buffer.from('*0\r\n'),
      () => Buffer.from('>0\r\n'),
      () => Buffer.from('>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n'),
      () => Buffer.from('>1\r\n$-1\r\n'),
      () => Buffer.from('%1\r\n$-1\r\n:1\r\n'),
      () => Buffer.from('*1\r\n'.repeat(50_000)), // as deep as that
      () => Buffer.from(`*${random.pick([4_294_967_296, 4_294_967_295, 1_000_000_000])}\r\n`),
      () => Buffer.from(`:${'9'.repeat(400)}\r\n`),
      () => Buffer.from('$12x\r\n'),
      () => Buffer.from('$abc\r\n'),
      () => Buffer.from(`-${random.pick(['MOVED 1 127.0.0.1:1', 'ASK 1 127.0.0.1:1', 'NOSCRIPT', 'LOADING', ''])}\r\n`),
      () => Buffer.from('+OK\r\n'),
      () => Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
    ])(),
  huge: (random) =>
    Buffer.from(random.pick(['$536870912\r\n', '$9999999999999\r\n', '+', '-ERR ', ':', '*1000000\r\n'])),
  mayOverwrite: () => true,
}

export const PROTOCOLS: Record<PeerName, Protocol> = { mqtt, kafka, redis }
