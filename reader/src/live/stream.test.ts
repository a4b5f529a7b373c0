// Clients that read a made-up topic by way of the ring and of Kafka, are cut anywhere, and go on at another reader.
import type { DeviceMessage } from '@iot/shared/contract'
import { encodeMessage } from '@iot/shared/contract'
import { decodePosition } from '@iot/shared/positions'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { eventBytes } from './frames.js'
import { createRing, type Ring } from './ring.js'
import { createStream, type Stream, type StreamOptions } from './stream.js'

const ALL: StreamOptions = {
  format: 'sse',
  matches: () => true,
  isPartial: false,
  everyMs: 0,
  count: Number.POSITIVE_INFINITY,
}
const message = (deviceId: string, payload: string): DeviceMessage => ({
  deviceId,
  payload,
  timestamp: '1700000000',
  seconds: 1_700_000_000,
  text: encodeMessage(deviceId, payload, '1700000000'),
})
const recordOf = (partition: number, offset: number) => {
  const deviceId = `d${partition}-${offset % 3}`
  return { deviceId, key: Buffer.from(deviceId), value: Buffer.from(message(deviceId, String(offset)).text) }
}

/** What a client has got of the bytes that were written for it. */
function receive(bytes: Buffer): { positions: string[]; lastId: string | null } {
  const blocks = bytes.toString().split('\n\n').slice(0, -1)
  const ids = blocks.map((block) => /^id: (.*)$/m.exec(block)?.[1])
  const positions = blocks.flatMap((block, index) => (block.includes('event: update') ? [ids[index] ?? ''] : []))
  return { positions: positions.map((id) => id.slice(0, id.indexOf('~'))), lastId: ids.findLast((id) => id) ?? null }
}

type Client = { stream: Stream; written: Buffer[]; takes: { bytes: number } }
function clientOf(ring: Ring, options: StreamOptions = ALL): Client {
  const written: Buffer[] = []
  const takes = { bytes: Number.POSITIVE_INFINITY }
  const write = (chunk: Buffer) => {
    written.push(chunk)
    takes.bytes -= chunk.length
    return takes.bytes > 0
  }
  return { stream: createStream(options, { ring, write, extras: () => [], onDone: () => {} }), written, takes }
}
/** Hands a client that is behind what the topic has, as far as the ring says. */
function catchUp({ stream }: Client, topic: number[]) {
  for (let turn = 0; stream.isBehind && !stream.isFull && turn < 1000; turn++) {
    for (const [partition, from] of stream.wanted()) {
      const to = Math.min(from + 3, topic[partition] as number)
      const records = Array.from({ length: to - from }, (_, index) => {
        const { key, value } = recordOf(partition, from + index)
        return { key, value, offset: String(from + index) }
      })
      stream.fill(partition, records, to)
    }
    stream.pump(0)
  }
}

test('cut at any byte, again and again, at readers that mix the partitions otherwise: each record once, in order', () => {
  const step = fc.record({
    order: fc.array(fc.nat(2), { maxLength: 30 }), // partitions, as this reader comes by their records
    ringBytes: fc.integer({ min: 300, max: 5000 }),
    readsFrom: fc.tuple(fc.nat(20), fc.nat(20), fc.nat(20)), // how far back this reader begins
    cutAfter: fc.nat(4000),
    takes: fc.nat(3000),
  })
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 12 }), (steps) => {
      const ends = [0, 0, 0] // of the topic
      const got: string[] = []
      let id = '~0.0.0~abcdef'
      const live = (ringBytes: number, back: readonly number[], order: number[], cutAfter: number, takes: number) => {
        const ring = createRing(ringBytes)
        const starts = ends.map((end, partition) => Math.max(0, end - (back[partition] as number)))
        ring.reset(new Map(starts.entries()), 'abcdef')
        const client = clientOf(ring)
        client.takes.bytes = takes
        const { next = new Map() } = decodePosition(id)?.vector ?? {}
        client.stream.place({ topic: 'abcdef', next, gaps: [], generation: ring.generation })
        const serve = () => {
          client.stream.pump(0)
          catchUp(client, ends)
        }
        const read = (partition: number) => {
          const offset = ring.ends.get(partition) as number
          ring.push(partition, offset, message(recordOf(partition, offset).deviceId, String(offset)))
          ends[partition] = Math.max(ends[partition] as number, offset + 1)
        }
        serve()
        order.forEach((partition, index) => {
          read(partition)
          if (index % 4 === 0) serve()
          if (index % 7 === 6) {
            client.takes.bytes = takes
            client.stream.drained()
          }
        })
        for (const [partition, end] of ends.entries())
          while ((ring.ends.get(partition) as number) < end) read(partition)
        client.takes.bytes = takes
        client.stream.drained()
        serve()
        const { positions, lastId } = receive(Buffer.concat(client.written).subarray(0, cutAfter))
        got.push(...positions)
        id = lastId ?? id
      }
      for (const { ringBytes, readsFrom, order, cutAfter, takes } of steps)
        live(ringBytes, readsFrom, order, cutAfter, takes)
      live(1_000_000, [5, 0, 2], [], Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY)
      for (const [partition, end] of ends.entries())
        expect(got.filter((position) => position.startsWith(`${partition}:`))).toEqual(
          Array.from({ length: end }, (_, offset) => `${partition}:${offset}`),
        )
    }),
    { numRuns: 200 },
  )
})

const placed = (ring: Ring, options: Partial<StreamOptions> = {}) => {
  const client = clientOf(ring, { ...ALL, ...options })
  client.stream.place({ topic: ring.topic, next: ring.ends, gaps: [], generation: ring.generation })
  client.stream.pump(0)
  return client
}
const begun = () => {
  const ring = createRing(1_000_000)
  ring.reset(new Map([0, 0].entries()), 'abcdef')
  return ring
}

test('whoever filters moves with what is passed over: its id is as new as the topic', () => {
  const ring = begun()
  const client = placed(ring, { matches: (id) => id === 'wanted' })
  for (let offset = 0; offset < 100; offset++) ring.push(0, offset, message('other', '1'))
  client.stream.pump(0)
  expect(client.written).toEqual([])
  client.stream.heartbeat(15_000)
  expect(String(client.written)).toBe('id: ~2s.0~abcdef\n\n')
  expect(client.stream.writtenMs).toBe(15_000)
})

test('the newest of each device in a time; only the last of a flush moves the client behind all of them', () => {
  const ring = begun()
  const client = placed(ring, { everyMs: 500 })
  const send = (offset: number, id: string) => ring.push(0, offset, message(id, String(offset)))
  send(0, 'a')
  expect(client.stream.pump(1000)).toBe(Number.POSITIVE_INFINITY) // the first leaves at once
  send(1, 'a')
  send(2, 'b')
  expect(client.stream.pump(1100)).toBe(1500)
  send(3, 'a')
  client.stream.pump(1500)
  const ids = Buffer.concat(client.written)
    .toString()
    .match(/^id: .*$/gm)
  expect(ids).toEqual(['id: 0:0~1.0~abcdef', 'id: 0:2~1.0~abcdef', 'id: 0:3~4.0~abcdef'])
})

test('a client that takes nothing is kept nothing for, and goes on where it was', () => {
  const ring = createRing(10_000)
  ring.reset(new Map([[0, 0]]), 'abcdef')
  const client = placed(ring)
  client.takes.bytes = 1
  for (let offset = 0; offset < 1000; offset++) {
    ring.push(0, offset, recordMessage(offset))
    client.stream.pump(0)
  }
  expect(client.written).toHaveLength(1)
  expect(ring.end - ring.base).toBeLessThan(50)
  client.takes.bytes = Number.POSITIVE_INFINITY
  client.stream.drained()
  client.stream.pump(0)
  expect(client.stream.isBehind).toBe(true)
  expect([...client.stream.wanted()]).toEqual([[0, 1]])
  catchUp(client, [1000])
  client.stream.pump(0)
  expect(receive(Buffer.concat(client.written)).positions).toEqual(Array.from({ length: 1000 }, (_, at) => `0:${at}`))
})
const recordMessage = (offset: number) => message(recordOf(0, offset).deviceId, String(offset))

test('after so many updates it is done', () => {
  for (const everyMs of [0, 500]) {
    const ring = begun()
    let isDone = false
    const written: Buffer[] = []
    const write = (chunk: Buffer) => written.push(chunk) > 0
    const onDone = () => {
      isDone = true
    }
    const parts = { ring, write, extras: () => [eventBytes('sse', 'status', '{}')].slice(written.length), onDone }
    const stream = createStream({ ...ALL, everyMs, count: 2 }, parts)
    stream.place({ topic: 'abcdef', next: ring.ends, gaps: [], generation: ring.generation })
    for (const id of ['a', 'b', 'c']) ring.push(0, ring.ends.get(0) as number, message(id, '1'))
    stream.pump(1000)
    stream.pump(2000)
    expect(isDone).toBe(true)
    expect(
      Buffer.concat(written)
        .toString()
        .match(/event: \w+/g),
    ).toEqual(['event: status', 'event: update', 'event: update'])
  }
})
