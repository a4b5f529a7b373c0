import fc from 'fast-check'
import packet, { type IPublishPacket, type Packet } from 'mqtt-packet'
import { expect, test } from 'vitest'
import { createSizeLimit } from './size-limit.js'

const KEPT = 300
const PASS = 200

/** What the parser gets of `bytes`, cut into pieces; what was cut, and what was found broken. */
function filter(protocolVersion: 4 | 5, bytes: Buffer, pieces: number[]) {
  const cut: number[] = []
  const broken: string[] = []
  const out: Buffer[] = []
  const limit = createSizeLimit({
    protocolVersion,
    keptBytes: KEPT,
    passBytes: PASS,
    onCut: (sentBytes) => cut.push(sentBytes),
    onBroken: (problem) => broken.push(problem),
  })
  let at = 0
  for (let index = 0; at < bytes.length; index++) {
    const size = pieces[index % pieces.length] ?? bytes.length
    limit(bytes.subarray(at, at + size), (piece) => {
      out.push(piece)
      return true
    })
    at += size
  }
  return { out: Buffer.concat(out), cut, broken }
}

function parse(protocolVersion: 4 | 5, bytes: Buffer): Packet[] {
  const packets: Packet[] = []
  const parser = packet.parser({ protocolVersion })
  parser.on('packet', (one) => packets.push(one))
  parser.on('error', (error: Error) => {
    throw error
  })
  parser.parse(bytes)
  return packets
}

const publish = (
  protocolVersion: 4 | 5,
  qos: 0 | 1 | 2,
  topicBytes: number,
  payloadBytes: number,
  properties: number,
) =>
  packet.generate(
    {
      cmd: 'publish',
      topic: 't'.repeat(topicBytes),
      payload: Buffer.alloc(payloadBytes, 'p'),
      qos,
      dup: qos > 0,
      retain: payloadBytes % 2 === 0,
      ...(qos > 0 ? { messageId: 7 } : {}),
      ...(protocolVersion === 5 && properties > 0
        ? { properties: { userProperties: { key: 'v'.repeat(properties) } } }
        : {}),
    } as IPublishPacket,
    { protocolVersion },
  )

const size = fc.oneof(fc.nat(KEPT + 5), fc.constantFrom(KEPT - 1, KEPT, KEPT + 1, 20_000))
const message = fc.record({
  qos: fc.constantFrom(0, 1, 2),
  topic: fc.integer({ min: 1, max: 400 }),
  size,
  properties: fc.nat(500),
})
const pieces = fc.array(fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 70_000 })), { minLength: 1 })

test.each([
  4, 5,
] as const)('MQTT %d: in pieces of any size, each message keeps its topic, flags, id and the beginning of its payload', (version) => {
  fc.assert(
    fc.property(fc.array(message, { minLength: 1, maxLength: 8 }), pieces, (messages, cutAt) => {
      const wire = messages.flatMap(({ qos, topic, size: bytes, properties }) => [
        publish(version, qos as 0 | 1 | 2, topic, bytes, properties),
        packet.generate({ cmd: 'pingresp' }, { protocolVersion: version }),
      ])
      const { out, cut, broken } = filter(version, Buffer.concat(wire), cutAt)
      expect(broken).toEqual([])
      const seen = parse(version, out)
      const wanted = wire.flatMap((bytes) => parse(version, bytes))
      expect(seen).toHaveLength(wanted.length)
      const sizes = [...cut]
      seen.forEach((one, index) => {
        const original = wanted[index] as IPublishPacket
        expect(one.cmd).toBe(original.cmd)
        if (one.cmd !== 'publish') return
        const { topic, qos, dup, retain, messageId } = original
        expect(one).toMatchObject({ topic, qos, dup, retain, ...(messageId === undefined ? {} : { messageId }) })
        expect(one.payload).toEqual(original.payload.slice(0, KEPT))
        expect(one.length ?? 0).toBeLessThan(2 + 400 + 2 + KEPT + PASS + 10)
        if (one.payload.length === KEPT) expect(sizes.shift()).toBe(original.payload.length)
      })
      expect(sizes).toEqual([])
    }),
    { numRuns: 80 },
  )
})

test('small packets go through as they are, without being copied', () => {
  const bytes = Buffer.concat(Array.from({ length: 100 }, () => publish(4, 1, 20, 50, 0)))
  const seen: Buffer[] = []
  const limit = createSizeLimit({ protocolVersion: 4, keptBytes: KEPT, passBytes: PASS, onCut() {}, onBroken() {} })
  expect(limit(bytes, (piece) => seen.push(piece) < 0)).toBe(false) // what the parser wants is passed on
  expect(seen).toHaveLength(1)
  expect(seen[0]).toBe(bytes)
})

test('a message of 250 MB is never held', () => {
  const head = Buffer.from([0x32, 0x80, 0x80, 0x80, 0x7f, 0, 1, 0x74, 0, 9])
  const total = 0x7f * 128 ** 3
  const emitted: number[] = []
  const cut: number[] = []
  const limit = createSizeLimit({
    protocolVersion: 4,
    keptBytes: KEPT,
    passBytes: PASS,
    onCut: (bytes) => cut.push(bytes),
    onBroken() {},
  })
  const emit = (piece: Buffer) => emitted.push(piece.length) > 0
  limit(head, emit)
  const block = Buffer.alloc(1_000_000)
  let left = total - 5
  for (; left > block.length; left -= block.length) limit(block, emit)
  limit(Buffer.concat([block.subarray(0, left), Buffer.from([0xd0, 0])]), emit)
  expect(cut).toEqual([total - 5])
  expect(emitted.reduce((sum, bytes) => sum + bytes, 0)).toBe(3 + 5 + KEPT + 2)
})

test.each<[string, number[], string]>([
  ['another packet as large as a message', [0x90, 0x80, 0x80, 0x80, 0x01], 'type 9'],
  ['a length of five bytes', [0x30, 0x80, 0x80, 0x80, 0x80, 0x01], 'valid length'],
  ['a topic longer than the packet', [0x30, 0x80, 0x02, 0xff, 0xff], 'longer than the whole'],
  [
    'properties longer than the packet',
    [0x30, 0x80, 0x02, 0, 1, 0x74, 0xff, 0xff, 0xff, 0x7f],
    'longer than the whole',
  ],
  ['properties without a length', [0x30, 0x80, 0x02, 0, 1, 0x74, 0xff, 0xff, 0xff, 0xff], 'valid length'],
])('%s ends it', (_what, bytes, words) => {
  const { out, broken } = filter(5, Buffer.concat([Buffer.from(bytes), Buffer.alloc(70_000)]), [1000])
  expect(broken).toEqual([expect.stringContaining(words)])
  expect(out).toHaveLength(0)
})
