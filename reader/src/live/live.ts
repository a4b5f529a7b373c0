// The live feed, put together: the tail of the topic, the clients, and what brings those that are behind to it.
import type { Check } from '@iot/shared/health'
import type { KafkaConnections } from '@iot/shared/kafka/connections'
import type { Offsets } from '@iot/shared/positions'
import type { Logger } from 'pino'
import type { Presence } from '../presence.js'
import { createCatchUp } from './catch-up.js'
import { createExtras } from './extras.js'
import { createFeed, type Feed } from './feed.js'
import { createTail } from './tail.js'

export type LiveParts = {
  topic: string
  /** Makes connections to Kafka. */
  connect: () => KafkaConnections
  /** What the group has stored of these partitions. */
  committed: (partitions: number[]) => Promise<Offsets>
  presence: Pick<Presence, 'current' | 'onChange'>
  /** The newest flow as JSON; null before the first. */
  flow: () => string | null
  maxStreams: number
  maxOfAddress: number
  onFatal(error: unknown): void
  logger: Logger
}

export type Live = { feed: Feed; check: Check; start(): void; stop(): Promise<void> }

export function createLive(parts: LiveParts): Live {
  const { topic, connect, committed, presence, flow, maxStreams, maxOfAddress, onFatal, logger } = parts
  const onNews = () => feed.wake()
  const tail = createTail({ topic, connect, committed, onNews, onFatal, logger })
  const extras = createExtras({ presence, flow, kafka: tail.check, onNews })
  const feed: Feed = createFeed({ tail, catchUp: () => catchUp, extras, maxStreams, maxOfAddress, logger })
  const catchUp = createCatchUp(connect(), topic, tail, feed.serve)
  return {
    feed,
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
