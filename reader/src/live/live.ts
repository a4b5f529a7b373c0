// The live feed, put together: the tail of the topic, the clients, and what brings those that are behind to it.
import type { Check } from '@iot/shared/health'
import type { KafkaConnections } from '@iot/shared/kafka/connections'
import { startOf } from '@iot/shared/kafka/topic-state'
import { withDeadline } from '@iot/shared/lifecycle'
import { encodeVector, topicTag } from '@iot/shared/positions'
import type { Logger } from 'pino'
import type { Presence } from '../presence.js'
import type { Stored } from '../stored.js'
import { createCatchUp } from './catch-up.js'
import { createExtras } from './extras.js'
import { createFeed, type Feed } from './feed.js'
import { MAX_WHOLE_PARTITIONS } from './ring.js'
import { createTail, type Tail } from './tail.js'

const POSITION_MS = 1000

export type LiveParts = {
  topic: string
  /** Makes connections to Kafka. */
  connect: () => KafkaConnections
  stored: Pick<Stored, 'of'>
  presence: Pick<Presence, 'current' | 'onChange'>
  /** The newest flow as JSON; null before the first. */
  flow: () => string | null
  /** Called for each reading that is read while somebody listens. */
  onReading(deviceId: string, seconds: number): void
  maxStreams: number
  maxOfAddress: number
  onFatal(error: unknown): void
  logger: Logger
}

export type Live = {
  feed: Feed
  /** The topic as it is now. @throws when Kafka is away */
  locate: Tail['locate']
  /** From where a feed misses nothing after what is stored at this moment; null where that is not known. */
  position(): Promise<string | null>
  check: Check
  start(): void
  stop(): Promise<void>
}

export function createLive(parts: LiveParts): Live {
  const { topic, connect, stored, presence, flow, onReading, maxStreams, maxOfAddress, onFatal, logger } = parts
  const onNews = () => feed.wake()
  const tail = createTail({ topic, connect, stored, onReading, onNews, onFatal, logger })
  const extras = createExtras({ presence, flow, kafka: tail.check, onNews })
  const feed: Feed = createFeed({ tail, catchUp: () => catchUp, extras, maxStreams, maxOfAddress, logger })
  const catchUp = createCatchUp(connect(), topic, tail, feed.serve)

  const findPosition = async () => {
    const { topic: state, bounds } = await tail.locate()
    const reached = await stored.of([...bounds.keys()])
    const next = new Map(
      [...bounds].map(([one, bound]) => [one, startOf(reached.get(one) ?? null, state.id, bound).offset]),
    )
    const isWhole = next.size === state.partitions.length && next.size <= MAX_WHOLE_PARTITIONS
    return isWhole ? encodeVector({ topic: topicTag(state.id), next }) : null
  }

  return {
    feed,
    locate: tail.locate,
    async position() {
      if (tail.check() !== null) return null
      return withDeadline(findPosition(), POSITION_MS).catch(() => null)
    },
    check: tail.check,
    start() {
      tail.start()
      feed.start()
    },
    async stop() {
      feed.stop()
      await Promise.all([catchUp.stop(), tail.stop()])
    },
  }
}
