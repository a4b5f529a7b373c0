// The parts of the bridge that keep its promises, joined as main.ts joins them, between a broker and a Kafka that are
// simulated: both refuse, lose answers, move leaders and forget connections as a run of steps says. No time passes but
// the simulated one.
import { createAckWindow, type Held } from '@iot/bridge/ack-window'
import { parseTopic } from '@iot/bridge/topics'
import { type Batch, createSendQueue } from '@iot/shared/send-queue'
import fc from 'fast-check'

const DEVICES = ['a', 'ba', 'c', 'dc']
const PREFIX = 'devices'
const LEADERS = 3
const WINDOW = 8
const RETRY_MS = 100

/** What a run does, one step after the other. */
export type BridgeStep =
  | { do: 'publish'; device: number; count: number }
  | { do: 'deliver'; count: number }
  /** A leader answers: `stored` and `lost` are bits, by partition: stored, and stored without an answer. */
  | { do: 'answer'; leader: number; stored: number; lost: number }
  | { do: 'move'; partition: number }
  | { do: 'disconnect' }
  | { do: 'crash' }
  | { do: 'wait' }
  | { do: 'partitions'; count: number; isNewTopic: boolean }

const bits = fc.nat(63)
export const bridgeSteps = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('publish' as const),
        device: fc.nat(3),
        count: fc.integer({ min: 1, max: 4 }),
      }),
    },
    { weight: 5, arbitrary: fc.record({ do: fc.constant('deliver' as const), count: fc.integer({ min: 1, max: 8 }) }) },
    {
      weight: 6,
      arbitrary: fc.record({ do: fc.constant('answer' as const), leader: fc.nat(2), stored: bits, lost: bits }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('move' as const), partition: fc.nat(5) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('disconnect' as const) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('crash' as const) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('wait' as const) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constant('partitions' as const),
        count: fc.integer({ min: 1, max: 6 }),
        isNewTopic: fc.boolean(),
      }),
    },
  ),
  { maxLength: 60 },
)

/** Mistakes of the kinds that were made in systems like this one, to see that a run finds them. */
export const BRIDGE_FAULTS = [
  'acknowledge on receipt',
  'acknowledge by leader',
  'acknowledge out of order',
  'drop what was refused',
  'send again as new',
  'take a redelivery for new',
  'acknowledge on the next connection',
  'skip partitions that are gone',
  'cut ids by length',
] as const
export type BridgeFault = (typeof BRIDGE_FAULTS)[number] | null

type Published = { device: string; seq: number }
type Sent = Published & { packetId: number; isDup: boolean }
type Stored = Published & { text: string }

/** Runs the steps, then lets everything heal, and checks what the bridge promises. @throws where a promise is broken */
export function runBridge(steps: BridgeStep[], fault: BridgeFault = null): void {
  const broker = { queue: [] as Published[], inFlight: [] as Sent[], nextId: 1 }
  const published = new Map<string, number>()
  const kafka = createKafka()
  let hasCrashed = false
  let nowMs = 0
  let isConnected = true
  let bridge = start()

  function start() {
    const window = createAckWindow({ messages: WINDOW, bytes: 1_000_000 })
    const queue = createSendQueue<Stored>({
      maxRecords: 5,
      maxBytes: 1_000_000,
      partitionOf: (key, partitions) => key.charCodeAt(0) % partitions,
      backoffMs: () => RETRY_MS,
      onRedistribute: () => kafka.forgetProducer(),
      nowMs: () => nowMs,
    })
    kafka.forgetProducer()
    queue.setPartitions('t', kafka.count)
    return { window, queue, outstanding: new Map<number, Batch<Stored>[]>() }
  }

  const acknowledge = (messages: Pick<Held, 'packetId'>[]) => {
    for (const { packetId } of messages) {
      const head = broker.inFlight[0]
      if (head?.packetId !== packetId) throw new Error(`PUBACK ${packetId} while ${head?.packetId} is next`)
      if (!kafka.has(head)) throw new Error(`${head.device} ${head.seq} is acknowledged and not stored`)
      broker.inFlight.shift()
    }
  }

  const receive = ({ device, seq, packetId, isDup }: Sent) => {
    const { window, queue } = bridge
    const topic = `${PREFIX}/${device}/data`
    const payload = Buffer.from(String(seq))
    if (fault === 'acknowledge on receipt') acknowledge([{ packetId }])
    const known = fault === 'take a redelivery for new' ? null : window.reclaim(packetId, isDup, topic, payload)
    if (known) return settle()
    const held: Held = {
      topic,
      payload,
      isRetained: false,
      sentBytes: payload.length,
      packetId,
      qos: 1,
      isStored: false,
      isUnacknowledged: false,
    }
    window.add(held)
    const key = fault === 'cut ids by length' ? topic.slice(PREFIX.length + 2, -5) : parseTopic(topic, PREFIX)?.deviceId
    if (key === undefined) throw new Error(`no device in ${topic}`)
    const record = { device: key, seq, text: `${key} ${seq}` }
    const owner = window
    queue.push({
      topic: 't',
      key: key || 'x',
      record,
      bytes: 10,
      onStored() {
        owner.stored(held)
        if (fault === 'acknowledge out of order' && isConnected) acknowledge([held])
        else settle()
      },
    })
  }

  const settle = () => {
    if (fault === 'acknowledge on receipt' || fault === 'acknowledge out of order') return
    if (isConnected) acknowledge(bridge.window.takeAcknowledgeable())
  }

  const pump = () => {
    const { queue, outstanding } = bridge
    const batches = queue.take((_, partition) => {
      const leader = kafka.leaders[partition]
      return leader !== undefined && !outstanding.has(leader)
    })
    for (const batch of batches) {
      const leader = kafka.leaders[batch.partition] as number
      outstanding.set(leader, [...(outstanding.get(leader) ?? []), batch])
    }
  }

  const answer = (leader: number, stored: number, lost: number) => {
    const { queue, outstanding } = bridge
    const batches = outstanding.get(leader) ?? []
    outstanding.delete(leader)
    const isAny = batches.some(({ partition }) => (stored >> partition) & 1)
    for (const batch of batches) {
      const { partition, items } = batch
      const exists = partition < kafka.count && kafka.leaders[partition] === leader
      const isStored = exists && ((stored >> partition) & 1) === 1
      const records = items.map(({ record }) => record)
      if (isStored || (exists && (lost >> partition) & 1)) kafka.append(partition, records)
      if (isStored || (fault === 'acknowledge by leader' && isAny)) {
        if (isStored) kafka.settled(partition, records.length)
        queue.stored(batch)
      } else if (fault === 'skip partitions that are gone' && partition >= kafka.count) queue.stored(batch)
      else if (fault === 'drop what was refused' && items.length === 1) queue.tooLarge(batch)
      else {
        if (fault === 'send again as new') kafka.beginSequences()
        queue.failed(batch)
      }
    }
    pump()
  }

  const deliver = (count: number) => {
    for (let left = count; left > 0 && isConnected && !bridge.window.isFull; left--) {
      const again = broker.inFlight.find(({ isDup, packetId }) => isDup && !delivered.has(packetId))
      const next = again ?? queued()
      if (!next) return
      delivered.add(next.packetId)
      receive(next)
      if (bridge.window.messages > WINDOW) throw new Error(`${bridge.window.messages} messages are held`)
    }
    pump()
  }
  let delivered = new Set<number>() // over this connection
  const queued = (): Sent | undefined => {
    const first = broker.queue.shift()
    if (!first) return undefined
    const sent = { ...first, packetId: broker.nextId++, isDup: false }
    broker.inFlight.push(sent)
    return sent
  }

  const reconnect = () => {
    if (fault !== 'acknowledge on the next connection') bridge.window.disconnected()
    for (const sent of broker.inFlight) sent.isDup = true
    if (fault === 'acknowledge on the next connection') {
      for (const sent of broker.inFlight) sent.packetId = broker.nextId++
    }
    delivered = new Set()
    isConnected = true
  }

  const step = (one: BridgeStep) => {
    if (one.do === 'publish') {
      const device = DEVICES[one.device] as string
      for (let count = 0; count < one.count; count++) {
        const seq = published.get(device) ?? 0
        published.set(device, seq + 1)
        broker.queue.push({ device, seq })
      }
    } else if (one.do === 'deliver') deliver(one.count)
    else if (one.do === 'answer') answer(one.leader, one.stored, one.lost)
    else if (one.do === 'move') kafka.move(one.partition)
    else if (one.do === 'disconnect') reconnect()
    else if (one.do === 'wait') nowMs += RETRY_MS
    else if (one.do === 'crash') {
      hasCrashed = true
      bridge = start()
      reconnect()
    } else {
      kafka.resize(one.count, one.isNewTopic)
      bridge.queue.setPartitions('t', kafka.count)
    }
    pump()
  }

  for (const one of steps) step(one)
  for (let round = 0; broker.queue.length + broker.inFlight.length + bridge.queue.size > 0; round++) {
    if (round > 1000) throw new Error('it does not come to an end')
    nowMs += RETRY_MS
    deliver(WINDOW)
    for (let leader = 0; leader < LEADERS; leader++) answer(leader, 63, 0)
    settle()
  }
  kafka.check(published, hasCrashed)
}

/** Partitions of one topic, an idempotent producer's sequence in each, and what an operator deleted with its topic. */
function createKafka() {
  let logs: Stored[][] = [[], [], [], []]
  let sequences = new Map<number, number>() // of the producer, by partition: what it has been told is stored
  let reached = new Map<number, number>() // what Kafka has of that producer
  const all: Stored[] = [] // in the order of Kafka's clock
  const deleted = new Set<string>()
  const has = new Set<string>()
  let wasForgotten = false
  const leaders = [0, 1, 2, 0, 1, 2]

  return {
    leaders,
    get count() {
      return logs.length
    },
    has: ({ device, seq }: Published) => has.has(`${device} ${seq}`) || deleted.has(`${device} ${seq}`),
    append(partition: number, records: Stored[]) {
      const from = sequences.get(partition) ?? 0
      if ((reached.get(partition) ?? 0) >= from + records.length) return // Kafka drops the repeat
      reached.set(partition, from + records.length)
      for (const record of records) {
        logs[partition]?.push(record)
        all.push(record)
        has.add(record.text)
      }
    },
    settled(partition: number, count: number) {
      sequences.set(partition, (sequences.get(partition) ?? 0) + count)
    },
    /** Under a new producer id sequences begin anew, and a repeat is not recognised. */
    forgetProducer() {
      if (all.length > 0) wasForgotten = true
      this.beginSequences()
    },
    beginSequences() {
      sequences = new Map()
      reached = new Map()
    },
    move(partition: number) {
      leaders[partition] = ((leaders[partition] as number) + 1) % LEADERS
    },
    resize(count: number, isNewTopic: boolean) {
      if (isNewTopic) {
        for (const { text } of all) deleted.add(text)
        logs = Array.from({ length: count }, () => [])
        if (all.length > 0) wasForgotten = true
      } else while (logs.length < count) logs.push([])
    },
    check(published: Map<string, number>, hasCrashed: boolean) {
      const seen = new Set<string>()
      const highest = new Map<string, number>()
      for (const { device, seq, text } of all) {
        if (seq >= (published.get(device) ?? 0)) throw new Error(`${text} was never published`)
        if (seen.has(text)) {
          if (!hasCrashed && !wasForgotten) throw new Error(`${text} is repeated`)
          continue
        }
        seen.add(text)
        if (seq < (highest.get(device) ?? 0)) throw new Error(`${text} is out of order`)
        highest.set(device, seq)
      }
      for (const [device, count] of published)
        for (let seq = 0; seq < count; seq++)
          if (!seen.has(`${device} ${seq}`)) throw new Error(`${device} ${seq} is missing`)
    },
  }
}
