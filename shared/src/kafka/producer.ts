// An idempotent producer that knows, for each partition, what Kafka has of it: the answer for the partition is what
// counts, not the answer of a broker. What comes again under the same sequence number is dropped by Kafka, also when a
// frozen broker finds the first try in its socket later.
import { createRequire } from 'node:module'
import { pause } from '../backoff.js'
import { errorOf, type KafkaConnections, type KafkaError, type ProtocolRequest, throttleOf } from './connections.js'
import { encodeProduce, type KafkaRecord, type TopicData } from './produce-request.js'

const Encoder = createRequire(import.meta.url)('kafkajs/src/protocol/encoder') as new () => {
  buf: Buffer
  offset: number
}

const ACKS_ALL = -1
const REPLICATION_MS = 6000 // less than the time that the answer is waited for
const SEQUENCES = 2 ** 31 // then they begin at 0 again, as in Java's client
const SEQUENCE_ERRORS = new Set([
  'OUT_OF_ORDER_SEQUENCE_NUMBER',
  'UNKNOWN_PRODUCER_ID',
  'INVALID_PRODUCER_EPOCH',
  'INVALID_PRODUCER_ID_MAPPING',
  'PRODUCER_FENCED',
])

/** Records of one partition. A batch that failed must come again with the same records. */
export type PartitionBatch = { topic: string; partition: number; records: KafkaRecord[] }

export type Producer = {
  /**
   * Sends batches, at most one of each partition, to the broker that leads their partitions, and returns for each of
   * them null when all in-sync replicas have it, else what is wrong. One that has no answer may be stored or not.
   */
  send(leader: number, batches: PartitionBatch[]): Promise<(KafkaError | null)[]>
  /** Forgets a partition: what it holds next has nothing to do with what was sent before (a topic created again). */
  forget(topic: string, partition: number): void
  /** Whether Kafka makes us wait since we sent more than a quota allows. */
  isThrottled(): boolean
}

type Identity = { producerId: bigint; producerEpoch: number }
type Position = Identity & { sequence: number }
type ProduceResponse = {
  clientSideThrottleTime?: number // ms
  topics: { topicName: string; partitions: { partition: number; errorCode: number }[] }[]
}

const keyOf = ({ topic, partition }: { topic: string; partition: number }) => `${topic}/${partition}`

export function createProducer(connections: KafkaConnections): Producer {
  const positions = new Map<string, Position>()
  const throttledUntilMs = new Map<number, number>() // by broker
  let identity: Promise<Identity> | undefined // for partitions that have none yet

  const requestIdentity = async (): Promise<Identity> => {
    type Response = { errorCode: number; producerId: string; producerEpoch: number }
    const args = { transactionalId: null, transactionTimeout: 0 }
    const response = await connections.ask<Response>(null, 'InitProducerId', args)
    const error = errorOf(response.errorCode)
    if (error) throw error
    return { producerId: BigInt(response.producerId), producerEpoch: response.producerEpoch }
  }

  const positionOf = async (batch: PartitionBatch): Promise<Position> => {
    const known = positions.get(keyOf(batch))
    if (known) return known
    identity ??= requestIdentity()
    try {
      const position = { ...(await identity), sequence: 0 }
      positions.set(keyOf(batch), position)
      return position
    } catch (error) {
      identity = undefined
      throw error
    }
  }

  /** A partition whose sequence Kafka refuses goes on under a producer id of its own, from 0. */
  const renew = (batch: PartitionBatch) => {
    positions.delete(keyOf(batch))
    identity = undefined
  }

  const settle = (batch: PartitionBatch, position: Position, error: KafkaError | null): KafkaError | null => {
    const isStored = error === null || error.type === 'DUPLICATE_SEQUENCE_NUMBER' // Kafka has it from before
    if (isStored) position.sequence = (position.sequence + batch.records.length) % SEQUENCES
    else if (SEQUENCE_ERRORS.has(error.type ?? '')) renew(batch)
    return isStored ? null : error
  }

  return {
    async send(leader, batches) {
      let held: Position[]
      let response: ProduceResponse
      try {
        // here and not in kafkajs, where the wait would count as one for an answer
        const waitMs = (throttledUntilMs.get(leader) ?? 0) - performance.now()
        if (waitMs > 0) await pause(waitMs)
        held = []
        for (const batch of batches) held.push(await positionOf(batch))
        const topics = byTopic(batches, held)
        response = await connections.ask(leader, 'Produce', PLACEHOLDER, (made) => writeProduce(made, topics))
      } catch (error) {
        return batches.map(() => error as KafkaError)
      }
      throttledUntilMs.set(leader, performance.now() + throttleOf(response.clientSideThrottleTime ?? 0))
      const answers = new Map<string, number>()
      for (const { topicName, partitions } of response.topics)
        for (const { partition, errorCode } of partitions)
          answers.set(keyOf({ topic: topicName, partition }), errorCode)
      return batches.map((batch, index) => {
        const code = answers.get(keyOf(batch))
        const error = code === undefined ? new Error('Kafka did not say what became of the batch') : errorOf(code)
        return settle(batch, held[index] as Position, error)
      })
    },
    forget(topic, partition) {
      renew({ topic, partition, records: [] })
    },
    isThrottled: () => [...throttledUntilMs.values()].some((untilMs) => untilMs > performance.now()),
  }
}

// kafkajs chooses the version of the request, and decodes the answer; the bytes are ours
const PLACEHOLDER = { acks: ACKS_ALL, timeout: REPLICATION_MS, topicData: [] }
const OLDEST_VERSION = 3 // the first with record batches of format 2 (Kafka 0.11)

function writeProduce(made: ProtocolRequest, topics: TopicData[]): void {
  if (made.request.apiVersion < OLDEST_VERSION) throw new Error('Kafka 0.11 or newer is needed')
  // now, and not when kafkajs asks: a request that holds the records keeps them until the next collection of old
  // objects, since each request of a connection is reachable from the one before (3.5 MB for every 10,000 readings)
  const encoder = new Encoder()
  encoder.buf = encodeProduce(ACKS_ALL, REPLICATION_MS, topics)
  encoder.offset = encoder.buf.length
  made.request.encode = async () => encoder
}

function byTopic(batches: PartitionBatch[], positions: Position[]): TopicData[] {
  const topics = new Map<string, TopicData>()
  for (const [index, { topic, partition, records }] of batches.entries()) {
    const { producerId, producerEpoch, sequence } = positions[index] as Position
    const data = topics.get(topic) ?? { topic, partitions: [] }
    topics.set(topic, data)
    data.partitions.push({ partition, records, producerId, producerEpoch, firstSequence: sequence })
  }
  return [...topics.values()]
}
