// A Fetch request to the broker that leads some partitions of a topic.
import { type KafkaConnections, throttleOf } from './connections.js'
import { decodeFetchResponse, type FetchedPartition, type FetchResponse } from './fetch-response.js'

export type { FetchedPartition, FetchedRecord, FetchResponse } from './fetch-response.js'

const OLDEST_VERSION = 4 // the first with record batches of format 2 (Kafka 0.11)
const MAX_RESPONSE_BYTES = 10_000_000
const MIN_BYTES = 1

export type FetchOptions = {
  topic: string
  /** `offset` is the first that is wanted; records before it may come too, when they are in one batch with it. */
  partitions: { partition: number; offset: number }[]
  /** How long the broker may wait for a first record. */
  maxWaitMs: number
  /** Of each partition; a larger first batch still comes. */
  maxBytes: number
  /** Whether records come with their timestamps and headers. */
  detailed?: boolean
}

/** @throws when there is no answer, or one to something else; errors of single partitions are in the response */
export function fetchRecords(
  connections: KafkaConnections,
  leader: number,
  { topic, partitions, maxWaitMs, maxBytes, detailed = false }: FetchOptions,
): Promise<FetchResponse> {
  const args = {
    maxWaitTime: maxWaitMs,
    minBytes: MIN_BYTES,
    maxBytes: MAX_RESPONSE_BYTES,
    topics: [
      { topic, partitions: partitions.map(({ partition, offset }) => ({ partition, fetchOffset: offset, maxBytes })) },
    ],
  }
  return connections.ask<FetchResponse>(leader, 'Fetch', args, (made) => {
    const version = made.request.apiVersion
    if (version < OLDEST_VERSION) throw new Error('Kafka 0.11 or newer is needed')
    const decode = async (bytes: Buffer) => {
      const response = decodeFetchResponse(bytes, version, detailed)
      const isAsked = (found: FetchedPartition) =>
        found.topic === topic && partitions.some(({ partition }) => partition === found.partition)
      if (!response.partitions.every(isAsked)) throw new Error('the answer is about partitions that were not asked for')
      return { ...response, throttleMs: throttleOf(response.throttleMs) }
    }
    made.response = { decode, parse: async (decoded) => decoded }
  })
}
