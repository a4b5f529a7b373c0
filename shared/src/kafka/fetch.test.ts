// What an answer to a Fetch is believed: the records of Java's producer, and bytes of it that were changed.
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import type { KafkaConnections, ProtocolRequest } from './connections.js'
import { fetchRecords } from './fetch.js'

const fixtures = JSON.parse(readFileSync(new URL('fixtures.json', import.meta.url), 'utf8')) as Record<string, string>
const answer = Buffer.from(fixtures.gzip as string, 'base64')
const topic = answer.toString('utf8', 16, 16 + answer.readInt16BE(14))

/** Asks for partitions of a topic, and gets these bytes, as of version 11. */
function fetchFrom(bytes: Buffer, name = topic, partitions = [0]) {
  const ask = async (_node: number | null, _api: string, _args: unknown, change: (made: ProtocolRequest) => void) => {
    const made = { request: { apiVersion: 11 } } as ProtocolRequest
    change(made)
    return made.response.decode(bytes)
  }
  const wanted = partitions.map((partition) => ({ partition, offset: 0 }))
  return fetchRecords({ ask } as unknown as KafkaConnections, 1, {
    topic: name,
    partitions: wanted,
    maxWaitMs: 1,
    maxBytes: 1,
  })
}

test('records, where they are of a partition that was asked for', async () => {
  const { partitions } = await fetchFrom(answer)
  expect(partitions[0]?.records).toHaveLength(30)
  await expect(fetchFrom(answer, topic, [1, 2])).rejects.toThrow('not asked for')
  await expect(fetchFrom(answer, 'another')).rejects.toThrow('not asked for')
})

test.each([
  [0, 0],
  [1500, 1500],
  [0x7fffffff, 15_000],
  [-1, 0],
])('a throttle time of %d ms is one of %d', async (askedMs, waitedMs) => {
  const bytes = Buffer.from(answer)
  bytes.writeInt32BE(askedMs, 0)
  expect((await fetchFrom(bytes)).throttleMs).toBe(waitedMs)
})
