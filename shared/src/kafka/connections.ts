// Connections to the brokers of a Kafka cluster by their number, over kafkajs's own (its sockets, TLS, SASL and
// encodings), but with the answer of Kafka for each topic and partition: kafkajs's cluster throws the first error of a
// response and forgets the rest of it, and decides by broker what a failed send still owes, which loses records when a
// leader moves (https://github.com/tulios/kafkajs/issues/1303).
import { createRequire } from 'node:module'
import { pause } from '../backoff.js'
import { withDeadline } from '../lifecycle.js'
import type { KafkaOptions } from './client.js'

const require = createRequire(import.meta.url)
const inside = (module: string) => require(`kafkajs/src/${module}`)

const METADATA_MS = 3000 // then another broker is asked
const REQUEST_MS = 8000
const GRACE_MS = 1000 // kafkajs's own timeout comes first, where it works
const CLOSE_MS = 500
const MAX_THROTTLE_MS = 15_000 // more than Kafka asks for: at most quota.window.num times quota.window.size.seconds, 11 s

export type ProtocolRequest = {
  request: { apiVersion: number; encode(): Promise<unknown> }
  response: Response
  /** In milliseconds, where it is not the usual one. */
  requestTimeout?: number
}
type Response = { decode(bytes: Buffer): Promise<unknown>; parse(decoded: unknown): Promise<unknown> }
export type Change = (made: ProtocolRequest, newest: number) => void
type Definitions = { versions: string[] }
/** `broker` is another one after each failure. */
type Node = { address: string; broker: Broker }
type Broker = {
  isConnected(): boolean
  connect(): Promise<void>
  disconnect(): Promise<void>
  lookupRequest(apiKey: number, definitions: Definitions): (args: unknown) => ProtocolRequest
  versions: Record<number, { maxVersion: number }>
  connectionPool: { send(request: ProtocolRequest): Promise<unknown> }
}
const BrokerClass = inside('broker') as new (options: object) => Broker
const PoolClass = inside('network/connectionPool') as new (options: object) => unknown
const { requests } = inside('protocol/requests') as { requests: Record<string, Definitions> }
const apiKeys = inside('protocol/requests/apiKeys') as Record<string, number>
const { createLogger } = inside('loggers') as { createLogger(options: object): unknown }
const { createErrorFromCode } = inside('protocol/error') as { createErrorFromCode(code: number): KafkaError }

/** An error of Kafka's, `type` is its name in the protocol; or of the connection, without one. */
export type KafkaError = Error & { type?: string }

/** The error that stands for a code in a response; null for 0, success. */
export const errorOf = (code: number): KafkaError | null => (code === 0 ? null : createErrorFromCode(code))

/** How long to wait of the time that an answer asks for, in ms. Kafka itself holds back what comes too soon. */
export const throttleOf = (askedMs: number): number => Math.min(Math.max(askedMs, 0), MAX_THROTTLE_MS)

/** `leader` is null where no broker leads the partition now. */
export type PartitionMetadata = { partition: number; leader: number | null; replicas: number; inSync: number }
export type Metadata = {
  brokers: number
  /** By topic; an error where the topic cannot be used, such as UNKNOWN_TOPIC_OR_PARTITION. */
  topics: Map<string, PartitionMetadata[] | KafkaError>
}
type MetadataResponse = {
  brokers: { nodeId: number; host: string; port: number }[]
  topicMetadata: {
    topic: string
    topicErrorCode: number
    partitionMetadata: { partitionId: number; leader: number; replicas: number[]; isr: number[] }[]
  }[]
}

export type KafkaConnections = {
  /** Asks any broker that answers about these topics, and remembers where each broker is. @throws when none answers */
  metadata(topics: string[]): Promise<Metadata>
  /**
   * Sends a request to a broker; `null` means any that is known, and after a failure another one. A connection that
   * failed is replaced by the next request.
   * @param change replaces parts of the request that kafkajs would send; gets the newest version that the broker knows
   * @throws {KafkaError} when there is no connection or no answer within 8 s; error codes in the answer do not throw
   */
  ask<T>(node: number | null, api: string, args: unknown, change?: Change): Promise<T>
  close(): Promise<void>
}

/** Opens nothing until it is asked. */
export function createConnections(options: KafkaOptions): KafkaConnections {
  const { brokers, logLevel, logCreator, ...access } = options
  const logger = createLogger({ level: logLevel, logCreator }) as object
  const nodes = new Map<number, Node>()
  const seeds = brokers.map((address): Node => ({ address, broker: openAt(address) }))
  let preferred = 0 // rotates past those that do not answer
  let topicsAsked: string[] = []

  function openAt(address: string): Broker {
    const colon = address.lastIndexOf(':')
    const connectionPool = new PoolClass({
      ...access,
      host: address.slice(0, colon),
      port: Number(address.slice(colon + 1)),
      requestTimeout: REQUEST_MS,
      enforceRequestTimeout: true,
      logger,
    })
    return new BrokerClass({ connectionPool, logger, allowAutoTopicCreation: false })
  }

  const request = async (node: Node, api: string, args: unknown, change?: Change) => {
    const { broker } = node
    try {
      if (!broker.isConnected()) await withDeadline(broker.connect(), REQUEST_MS, 'no connection')
      const definitions = requests[api]
      const apiKey = apiKeys[api]
      if (!definitions || apiKey === undefined) throw new Error(`kafkajs knows no request ${api}`)
      const made = broker.lookupRequest(apiKey, definitions)(args)
      made.response = { decode: made.response.decode, parse: async (decoded) => decoded }
      change?.(made, broker.versions[apiKey]?.maxVersion ?? 0)
      // kafkajs forgets a request whose connection is dropped while it is being sent
      return await withDeadline(
        broker.connectionPool.send(made),
        (made.requestTimeout ?? REQUEST_MS) + GRACE_MS,
        'no answer',
      )
    } catch (error) {
      renew(node, broker)
      throw error
    }
  }

  const drop = ({ broker }: Node) => void broker.disconnect().catch(() => {})

  /**
   * The next request goes over connections of its own: kafkajs would take what came of an answer before its connection
   * broke, and what still comes of it, for the beginning of what comes over the next one.
   */
  const renew = (node: Node, failed: Broker) => {
    if (node.broker !== failed) return // another request has seen to it
    drop(node)
    node.broker = openAt(node.address)
  }

  /** Known brokers first, then the addresses of the configuration. */
  const candidates = () => {
    const all = [...nodes.values(), ...seeds]
    return all.map((_, index) => all[(index + preferred) % all.length] as (typeof all)[number])
  }

  const remember = (response: MetadataResponse) => {
    for (const { nodeId, host, port } of response.brokers) {
      const address = `${host}:${port}`
      const known = nodes.get(nodeId)
      if (known?.address === address) continue
      if (known) drop(known)
      nodes.set(nodeId, { address, broker: openAt(address) })
    }
    for (const [nodeId, node] of nodes) {
      if (response.brokers.some((one) => one.nodeId === nodeId)) continue
      drop(node)
      nodes.delete(nodeId)
    }
  }

  const metadata = async (topics: string[]): Promise<Metadata> => {
    topicsAsked = topics
    let last: unknown
    for (const node of candidates()) {
      const { broker } = node
      try {
        const asked = request(node, 'Metadata', { topics, allowAutoTopicCreation: false })
        const response = (await withDeadline(asked, METADATA_MS, 'no answer')) as MetadataResponse
        if (response.brokers.length === 0) throw new Error('the broker knows no cluster yet')
        remember(response)
        return asMetadata(response)
      } catch (error) {
        preferred++
        renew(node, broker)
        last = error
      }
    }
    throw last
  }

  return {
    metadata,
    async ask<T>(node: number | null, api: string, args: unknown, change?: Change) {
      // one that was not there at the last look may be by now
      if (node !== null && !nodes.has(node)) await metadata(topicsAsked)
      const found = node === null ? candidates()[0] : nodes.get(node)
      if (!found) throw new Error(`broker ${node} is not part of the cluster now`)
      try {
        return (await request(found, api, args, change)) as T
      } catch (error) {
        if (node === null) preferred++
        throw error
      }
    },
    async close() {
      const all = [...nodes.values(), ...seeds]
      nodes.clear()
      // kafkajs waits for the answers that are outstanding: those of a frozen broker never come
      await Promise.race([Promise.all(all.map(({ broker }) => broker.disconnect().catch(() => {}))), pause(CLOSE_MS)])
    },
  }
}

function asMetadata({ brokers, topicMetadata }: MetadataResponse): Metadata {
  const topics = new Map<string, PartitionMetadata[] | KafkaError>()
  for (const { topic, topicErrorCode, partitionMetadata } of topicMetadata) {
    const partitions = partitionMetadata.map(({ partitionId, leader, replicas, isr }) => ({
      partition: partitionId,
      leader: leader < 0 ? null : leader,
      replicas: replicas.length,
      inSync: isr.length,
    }))
    topics.set(topic, errorOf(topicErrorCode) ?? partitions.sort((a, b) => a.partition - b.partition))
  }
  return { brokers: brokers.length, topics }
}
