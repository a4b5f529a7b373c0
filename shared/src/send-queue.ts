// What waits to be sent to Kafka: a queue for each partition, so that one that cannot be written holds up no other.
//
// A partition has one batch in hand at a time, which keeps its order. A batch that failed stays in hand and is sent
// again with the same records, until its own partition says that it has them; only one that is refused for its size is
// cut. Pure: no server, the clock is handed in.

export type QueueItem<R> = {
  topic: string
  /** Decides the partition; null for partition 0. */
  key: string | null
  record: R
  bytes: number
  /** Called once, when Kafka has the record. */
  onStored: () => void
}

/** The records that one partition has in hand. */
export type Batch<R> = { topic: string; partition: number; items: QueueItem<R>[] }

export type SendQueue<R> = {
  /** Records that are not stored yet. */
  readonly size: number
  push(item: QueueItem<R>): void
  /**
   * Says how many partitions a topic has; 0 when that is not known, or the topic is not there. Records go to none
   * before it is known. With more partitions than before, what waits is sent first, for no device may overtake itself.
   * With fewer, everything that is not stored is distributed again once no batch of the topic is under way.
   */
  setPartitions(topic: string, count: number): void
  /**
   * Takes in hand what can be sent now, at most `maxRecords` in all. Each batch must be settled by exactly one of
   * `stored`, `failed` and `tooLarge`.
   * @param isOpen whether the partition's records can be sent now
   */
  take(isOpen: (topic: string, partition: number) => boolean): Batch<R>[]
  stored(batch: Batch<R>): void
  /** Keeps the batch in hand. Returns the milliseconds after which it may be taken again. */
  failed(batch: Batch<R>): number
  /** Halves what is sent to this partition at a time. Returns the record that is too large by itself, taken out. */
  tooLarge(batch: Batch<R>): QueueItem<R> | null
  /** The longest time for which a partition has had records and stored none, in milliseconds; 0 when none waits. */
  stalledMs(): number
}

type Partition<R> = {
  topic: string
  partition: number
  waiting: QueueItem<R>[]
  inHand: QueueItem<R>[]
  isSent: boolean
  maxBytes: number
  attempts: number
  notBeforeMs: number
  /** Since when it has had records and stored none. */
  sinceMs: number
}
type Topic<R> = {
  name: string
  partitions: Partition<R>[]
  /** What waits for the next number of partitions, and since when. */
  unplaced: QueueItem<R>[]
  unplacedSinceMs: number
  nextCount: number
}

export function createSendQueue<R>(options: {
  maxRecords: number
  /** Of one partition's batch. */
  maxBytes: number
  partitionOf: (key: string, partitions: number) => number
  backoffMs: (attempt: number) => number
  /** The partitions of a topic are not those that were sent to before. */
  onRedistribute: (topic: string, partitions: number) => void
  /** A monotonic clock in milliseconds. */
  nowMs: () => number
}): SendQueue<R> {
  const { maxRecords, maxBytes, partitionOf, backoffMs, onRedistribute, nowMs } = options
  const topics = new Map<string, Topic<R>>()
  let size = 0

  const topicOf = (name: string): Topic<R> => {
    let topic = topics.get(name)
    if (!topic) {
      topic = { name, partitions: [], unplaced: [], unplacedSinceMs: 0, nextCount: 0 }
      topics.set(name, topic)
    }
    return topic
  }

  const partitionFor = ({ topic, partition }: { topic: string; partition: number }): Partition<R> => {
    const found = topics.get(topic)?.partitions[partition]
    if (!found) throw new Error(`there is no partition ${topic}/${partition}`)
    return found
  }

  const place = (topic: Topic<R>, item: QueueItem<R>) => {
    const index = item.key === null ? 0 : partitionOf(item.key, topic.partitions.length)
    const partition = partitionFor({ topic: topic.name, partition: index })
    if (partition.waiting.length === 0 && partition.inHand.length === 0) partition.sinceMs = nowMs()
    partition.waiting.push(item)
  }

  const isEmpty = ({ waiting, inHand }: Partition<R>) => waiting.length === 0 && inHand.length === 0

  const isResizing = ({ nextCount, partitions }: Topic<R>) => nextCount !== partitions.length

  const placeUnplaced = (topic: Topic<R>) => {
    const items = topic.unplaced
    topic.unplaced = []
    for (const item of items) place(topic, item)
  }

  /** Goes over to the next number of partitions as soon as that reorders no device. */
  const resize = (topic: Topic<R>) => {
    const { nextCount, partitions } = topic
    if (isResizing(topic)) {
      const isShrinking = nextCount < partitions.length
      if (!partitions.every((one) => (isShrinking ? !one.isSent : isEmpty(one)))) return
      if (isShrinking) {
        // a device's records are all in one partition, in order, and stay so whatever the order of the partitions
        topic.unplaced.unshift(...partitions.flatMap(({ inHand, waiting }) => [...inHand, ...waiting]))
        topic.partitions = []
        onRedistribute(topic.name, partitions.length)
      }
      for (let index = topic.partitions.length; index < nextCount; index++)
        topic.partitions.push(newPartition(topic.name, index, maxBytes))
    }
    if (topic.partitions.length > 0 && topic.unplaced.length > 0) placeUnplaced(topic)
  }

  /** The partition's batch in hand, or the next at most `records` of what waits. */
  const takeFrom = (partition: Partition<R>, records: number): Batch<R> => {
    if (partition.inHand.length === 0) {
      let count = 0
      let bytes = 0
      for (const item of partition.waiting) {
        bytes += item.bytes
        if (count > 0 && (bytes > partition.maxBytes || count >= records)) break
        count++
      }
      partition.inHand = partition.waiting.slice(0, count)
      partition.waiting = partition.waiting.slice(count)
    }
    partition.isSent = true
    return { topic: partition.topic, partition: partition.partition, items: partition.inHand }
  }

  const settle = (batch: Batch<R>): Partition<R> => {
    const partition = partitionFor(batch)
    if (!partition.isSent || partition.inHand !== batch.items)
      throw new Error('a batch was settled that is not in hand')
    partition.isSent = false
    return partition
  }

  const release = (partition: Partition<R>) => {
    partition.inHand = []
    partition.attempts = 0
    partition.notBeforeMs = 0
    partition.sinceMs = nowMs()
  }

  return {
    get size() {
      return size
    },
    push(item) {
      const topic = topicOf(item.topic)
      size++
      if (!isResizing(topic) && topic.nextCount > 0) return place(topic, item)
      if (topic.unplaced.length === 0) topic.unplacedSinceMs = nowMs()
      topic.unplaced.push(item)
    },
    setPartitions(name, count) {
      const topic = topicOf(name)
      if (count > 0) topic.nextCount = count
      resize(topic)
    },
    take(isOpen) {
      const ready: Partition<R>[] = []
      const now = nowMs()
      for (const { partitions, nextCount } of topics.values()) {
        if (nextCount < partitions.length) continue
        for (const partition of partitions) {
          if (partition.isSent || isEmpty(partition) || partition.notBeforeMs > now) continue
          if (isOpen(partition.topic, partition.partition)) ready.push(partition)
        }
      }
      // the shortest first: what they leave of their share is for the longer ones
      ready.sort((a, b) => a.waiting.length - b.waiting.length)
      let left = maxRecords
      return ready.map((partition, index) => {
        const batch = takeFrom(partition, Math.max(Math.ceil(left / (ready.length - index)), 1))
        left -= batch.items.length
        return batch
      })
    },
    stored(batch) {
      const partition = settle(batch)
      partition.maxBytes = Math.min(partition.maxBytes * 2, maxBytes)
      release(partition)
      size -= batch.items.length
      resize(topicOf(batch.topic))
      for (const { onStored } of batch.items) onStored()
    },
    failed(batch) {
      const partition = settle(batch)
      const waitMs = backoffMs(partition.attempts++)
      partition.notBeforeMs = nowMs() + waitMs
      resize(topicOf(batch.topic))
      return waitMs
    },
    tooLarge(batch) {
      const partition = settle(batch)
      const [first] = batch.items
      if (!first) throw new Error('an empty batch was too large')
      release(partition)
      if (batch.items.length > 1) {
        partition.maxBytes = batch.items.reduce((sum, { bytes }) => sum + bytes, 0) / 2
        partition.waiting = [...batch.items, ...partition.waiting]
      } else size--
      resize(topicOf(batch.topic))
      return batch.items.length > 1 ? null : first
    },
    stalledMs() {
      let sinceMs = Number.POSITIVE_INFINITY
      for (const { partitions, unplaced, unplacedSinceMs } of topics.values()) {
        for (const partition of partitions) if (!isEmpty(partition)) sinceMs = Math.min(sinceMs, partition.sinceMs)
        if (unplaced.length > 0) sinceMs = Math.min(sinceMs, unplacedSinceMs)
      }
      return Number.isFinite(sinceMs) ? nowMs() - sinceMs : 0
    },
  }
}

const newPartition = <R>(topic: string, partition: number, maxBytes: number): Partition<R> => ({
  topic,
  partition,
  waiting: [],
  inHand: [],
  isSent: false,
  maxBytes,
  attempts: 0,
  notBeforeMs: 0,
  sinceMs: 0,
})
