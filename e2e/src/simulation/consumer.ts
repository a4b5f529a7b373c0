// The parts of two consumers that keep their promises, joined as kafka-source.ts joins them, between a Kafka and a
// Redis that are simulated: answers are refused, lost or late, members freeze and crash, partitions change hands, Kafka
// forgets commits. No time passes but the simulated one.
import { mock } from 'node:test'
import type { DeviceWork, SourceRecord } from '@iot/consumer/batch'
import { createCommitLog, type Owed } from '@iot/consumer/commit-log'
import { createLanes } from '@iot/consumer/lanes'
import { createStoring, type Refusal } from '@iot/consumer/storing'
import { encodeMessage } from '@iot/shared/contract'
import fc from 'fast-check'
import { pino } from 'pino'

const TOPIC = 't'
const PARTITIONS = [0, 1, 2]
const DEVICES = ['a', 'b', 'c', 'd', 'e', 'f'] // two for each partition
const BATCH = 3
const READ = 4
const SETTLE_MS = 4000
const FLUSH_MS = 2000
const WAIT_MS = 1500 // longer than any backoff of a lane
const WORK_TURNS = 3 // read, write, commit

/** What becomes of a request: done and said, done without an answer, or not done. */
type Outcome = 'done' | 'lost' | 'failed'

/** What a run does, one step after the other. */
export type ConsumerStep =
  | { do: 'publish'; device: number; count: number }
  | { do: 'read'; member: number; partition: number; count: number }
  | { do: 'redis'; member: number; partition: number; outcome: Outcome }
  | { do: 'commit'; member: number; outcome: Outcome }
  /** The partitions whose bit is set are the second member's from now on. */
  | { do: 'rebalance'; second: number }
  | { do: 'work' | 'freeze' | 'thaw' | 'crash'; member: number }
  | { do: 'forget'; partition: number }
  /** The device's key holds something else, or no longer. */
  | { do: 'spoil'; device: number }
  | { do: 'look' | 'wait' }

const one = <T extends string>(...values: T[]) => fc.constantFrom(...values)
const member = fc.nat(1)
const partition = fc.nat(2)
const device = fc.nat(5)
const outcome = fc.oneof(
  { weight: 3, arbitrary: one<Outcome>('done') },
  { weight: 1, arbitrary: one<Outcome>('lost', 'failed') },
)
export const consumerSteps: fc.Arbitrary<ConsumerStep[]> = fc.array(
  fc.oneof<fc.MaybeWeightedArbitrary<ConsumerStep>[]>(
    {
      weight: 4,
      arbitrary: fc.record({ do: one('publish'), device, count: fc.integer({ min: 1, max: 5 }) }),
    },
    {
      weight: 6,
      arbitrary: fc.record({ do: one('read'), member, partition, count: fc.integer({ min: 1, max: READ }) }),
    },
    { weight: 6, arbitrary: fc.record({ do: one('redis'), member, partition, outcome }) },
    { weight: 4, arbitrary: fc.record({ do: one('commit'), member, outcome }) },
    { weight: 2, arbitrary: fc.record({ do: one('rebalance'), second: fc.nat(7) }) },
    { weight: 5, arbitrary: fc.record({ do: one('work'), member }) },
    { weight: 2, arbitrary: fc.record({ do: one('freeze', 'thaw', 'crash'), member }) },
    { weight: 1, arbitrary: fc.record({ do: one('forget'), partition }) },
    { weight: 1, arbitrary: fc.record({ do: one('spoil'), device }) },
    { weight: 2, arbitrary: fc.record({ do: one('look', 'wait') }) },
  ),
  { maxLength: 60 },
)

/** Mistakes of the kinds that were made in systems like this one, to see that a run finds them. */
export const CONSUMER_FAULTS = [
  'commit what was read',
  'commit before the answer',
  'take no answer for success',
  'leave out dead letters',
  'forget what Kafka lost',
  'commit one too many',
  'commit under another partition',
  'go on where it stopped',
] as const
export type ConsumerFault = (typeof CONSUMER_FAULTS)[number] | null

type Write = { partition: number; devices: DeviceWork[]; answer(result: Refusal[] | Error): void }
type Commit = { generation: number; owed: Owed[]; answer(result: (Error | null)[] | Error): void }
type World = { kafka: Kafka; store: Store; fault: ConsumerFault; nowMs: () => number; onBug: (error: unknown) => void }

const logger = pino({ level: 'silent' })
const NO_ANSWER = new Error('no answer')
/** Lets everything happen that waits for nothing but its turn. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Runs the steps, then lets everything heal, and checks what the consumer promises. @throws where a promise is broken */
export async function runConsumer(steps: ConsumerStep[], fault: ConsumerFault = null): Promise<void> {
  let nowMs = 0
  let bug: unknown = null
  const store = createStore()
  const world: World = {
    kafka: createKafka(store),
    store,
    fault,
    nowMs: () => nowMs,
    onBug: (error) => {
      bug ??= error
    },
  }
  const group = createGroup(world)
  const pass = async (ms: number) => {
    nowMs += ms
    mock.timers.tick(ms)
    await turn()
    group.completeIfSettled()
    if (bug !== null) throw bug
  }

  mock.timers.enable({ apis: ['setTimeout'] })
  try {
    for (const step of steps) {
      for (let times = step.do === 'work' ? WORK_TURNS : 1; times > 0; times--) {
        takeStep(step, world, group)
        await pass(step.do === 'wait' ? WAIT_MS : 0)
      }
    }
    for (let round = 0; !world.kafka.isCommitted(); round++) {
      if (round > 200) throw new Error('it does not come to an end')
      for (const index of [0, 1]) {
        group.thaw(index)
        group.at(index).work()
        group.at(index).look()
      }
      await pass(WAIT_MS)
    }
  } finally {
    group.close()
    mock.timers.reset()
  }
}

function takeStep(step: ConsumerStep, { kafka, store }: World, group: Group): void {
  if (step.do === 'publish') kafka.publish(step.device, step.count)
  else if (step.do === 'read') group.at(step.member).read(step.partition, step.count)
  else if (step.do === 'work') group.at(step.member).work()
  else if (step.do === 'spoil') store.spoil(DEVICES[step.device] as string)
  else if (step.do === 'redis') group.at(step.member).answerWrite(step.partition, step.outcome)
  else if (step.do === 'commit') group.at(step.member).answerCommit(step.outcome)
  else if (step.do === 'rebalance') group.rebalance(step.second)
  else if (step.do === 'freeze') group.at(step.member).freeze()
  else if (step.do === 'thaw') group.thaw(step.member)
  else if (step.do === 'crash') group.crash(step.member)
  else if (step.do === 'forget') kafka.forget(step.partition)
  else if (step.do === 'look') for (const index of [0, 1]) group.at(index).look()
}

type Group = ReturnType<typeof createGroup>
/** Two members, and the coordinator that gives them partitions, once those who are present have let go of theirs. */
function createGroup(world: World) {
  const members = [createMember(world), createMember(world)]
  let second = 0 // bits: the partitions of the second member
  let isRebalancing = false
  const at = (index: number) => members[index] as Member

  const group = {
    at,
    rebalance(bits: number) {
      second = bits
      isRebalancing = true
      for (const member of members) if (!member.isFrozen) void member.settle()
    },
    completeIfSettled() {
      if (members.some((member) => member.isLost && !member.isFrozen)) group.rebalance(second)
      const present = members.filter(({ isFrozen }) => !isFrozen)
      if (!isRebalancing || present.length === 0 || present.some(({ isSettled }) => !isSettled)) return
      isRebalancing = false
      const generation = world.kafka.nextGeneration()
      const ownerOf = (partition: number) => {
        const wanted = at((second >> partition) & 1)
        return wanted.isFrozen ? (present[0] as Member) : wanted
      }
      for (const member of present) {
        const own = PARTITIONS.filter((partition) => ownerOf(partition) === member)
        member.begin(generation, own)
      }
    },
    thaw(index: number) {
      const member = at(index)
      if (!member.isFrozen) return
      member.thaw()
      group.rebalance(second)
    },
    crash(index: number) {
      at(index).close()
      members[index] = createMember(world)
      group.rebalance(second)
    },
    close() {
      for (const member of members) member.close()
    },
  }
  group.rebalance(second)
  group.completeIfSettled()
  return group
}

type Member = ReturnType<typeof createMember>
function createMember({ kafka, store, fault, nowMs, onBug }: World) {
  const writes: Write[] = []
  const asked: Commit[] = []
  const late: (() => void)[] = [] // answers that a frozen member does not see yet
  const positions = new Map<number, number>()
  let generation = 0
  let isSettled = true
  let isReading = false
  let isFrozen = false
  let isLost = false

  const commits = createCommitLog({
    commit: (owed) =>
      new Promise((resolve, reject) => {
        const answer = (result: (Error | null)[] | Error) => (Array.isArray(result) ? resolve(result) : reject(result))
        asked.push({ generation, owed, answer })
      }),
    onCommitted: () => {},
    onFailed(error) {
      if (error === kafka.LOST) isLost = true
    },
    onBug,
    intervalMs: 100,
    nowMs,
  })
  const storing = createStoring({
    sink: {
      start: () => {},
      check: () => null,
      write: (devices, partition) =>
        new Promise((resolve, reject) => {
          const answer = (result: Refusal[] | Error) => (Array.isArray(result) ? resolve(result) : reject(result))
          writes.push({ partition, devices, answer })
        }),
      stop: async () => {},
    },
    async deadLetter({ value }) {
      if (fault !== 'leave out dead letters') store.keep([value])
    },
    topic: TOPIC,
    logger,
  })
  const written = (partition: number, next: number, count: number, of: number) => {
    const shown = fault === 'commit one too many' ? next + 1 : next
    const where = fault === 'commit under another partition' ? (partition + 1) % PARTITIONS.length : partition
    commits.written({ topic: TOPIC, partition: where, next: shown, count }, of)
  }
  const lanes = createLanes({
    batchSize: BATCH,
    batchIntervalMs: 0,
    async write(records, partition) {
      const stored = storing(records, partition)
      if (fault !== 'commit before the answer') return stored
      stored.catch(() => {})
    },
    onWritten(partition, next, count, of) {
      if (fault !== 'commit what was read') written(partition, next, count, of)
    },
    onFatal: onBug,
    logger,
  })
  const say = (answer: () => void) => (isFrozen ? late.push(answer) : answer())

  const member = {
    get isFrozen() {
      return isFrozen
    },
    get isSettled() {
      return isSettled
    },
    get isLost() {
      return isLost
    },
    begin(next: number, partitions: number[]) {
      generation = next
      isReading = true
      isLost = false
      const found = (partition: number) => ({ topic: TOPIC, partition, offset: kafka.committed(partition) })
      commits.begin(generation, partitions.map(found))
      lanes.begin(partitions, generation)
      for (const partition of partitions) {
        const from = fault === 'go on where it stopped' ? (positions.get(partition) ?? 0) : 0
        positions.set(partition, Math.max(from, kafka.committed(partition)))
      }
    },
    read(partition: number, count: number) {
      const lane = lanes.byPartition.get(partition)
      if (!isReading || isFrozen || !lane || lane.isFull) return
      const from = positions.get(partition) ?? 0
      const records = kafka.read(partition, from, count)
      positions.set(partition, from + records.length)
      lane.push(records)
      if (lane.size > 2 * BATCH + READ) throw new Error(`a lane holds ${lane.size} records`)
      const isTooEarly = fault === 'commit what was read' && records.length > 0
      if (isTooEarly) written(partition, from + records.length, records.length, generation)
    },
    answerWrite(partition: number, outcome: Outcome) {
      const index = writes.findIndex((write) => write.partition === partition)
      if (index < 0) return
      const [{ devices, answer }] = writes.splice(index, 1) as [Write]
      const refused = devices.filter(({ deviceId }) => store.isSpoilt(deviceId))
      if (outcome !== 'failed') {
        const taken = devices.filter((work) => !refused.includes(work))
        for (const { records } of taken) store.keep(records.map(({ value }) => value))
      }
      const isUnknown = outcome !== 'done' && fault !== 'take no answer for success'
      say(() => answer(isUnknown ? NO_ANSWER : refused.map((work) => ({ work, error: 'WRONGTYPE' }))))
    },
    answerCommit(outcome: Outcome) {
      const commit = asked.shift()
      if (!commit) return
      const { owed, answer } = commit
      const error = outcome === 'failed' ? NO_ANSWER : kafka.commit(commit.generation, owed)
      say(() => answer(outcome === 'done' ? owed.map(() => error) : NO_ANSWER))
    },
    /** Does what there is to do, as if nothing were wrong. */
    work() {
      for (const partition of PARTITIONS) {
        member.read(partition, READ)
        member.answerWrite(partition, 'done')
      }
      member.answerCommit('done')
    },
    /** Asks Kafka what it has, as the consumer does every few seconds. */
    look() {
      if (!isReading || isFrozen || generation !== kafka.generation || fault === 'forget what Kafka lost') return
      const own = [...lanes.byPartition.keys()]
      commits.confirm(own.map((partition) => ({ topic: TOPIC, partition, offset: kafka.committed(partition) })))
    },
    async settle() {
      if (!isReading) return
      isReading = false
      isSettled = false
      await lanes.hold(SETTLE_MS)
      await commits.flush(FLUSH_MS)
      isSettled = true
    },
    freeze() {
      isFrozen = true
    },
    thaw() {
      isFrozen = false
      for (const answer of late.splice(0)) answer()
    },
    close: () => lanes.close(),
  }
  return member
}

type Kafka = ReturnType<typeof createKafka>
/** The topic, what the group has committed, and its generation. */
function createKafka(store: Store) {
  const LOST = new Error('another generation')
  const logs = PARTITIONS.map((): SourceRecord[] => [])
  const published = new Map<string, number>()
  const committed = PARTITIONS.map(() => 0)
  let generation = 0

  return {
    LOST,
    get generation() {
      return generation
    },
    nextGeneration: () => ++generation,
    committed: (partition: number) => committed[partition] as number,
    publish(index: number, count: number) {
      const device = DEVICES[index] as string
      const log = logs[index % PARTITIONS.length] as SourceRecord[]
      for (let left = count; left > 0; left--) {
        const seq = published.get(device) ?? 0
        published.set(device, seq + 1)
        const value = Buffer.from(encodeMessage(device, String(seq), '1700000000'))
        log.push({ key: Buffer.from(device), value, offset: String(log.length) })
      }
    },
    read: (partition: number, from: number, count: number) => logs[partition]?.slice(from, from + count) ?? [],
    commit(of: number, owed: Owed[]): Error | null {
      if (of !== generation) return LOST
      for (const { partition, next } of owed) {
        const unsafe = logs[partition]?.slice(0, next).find(({ value }) => !store.has(value))
        if (unsafe) throw new Error(`${unsafe.value} is committed and not written`)
        committed[partition] = next
      }
      return null
    },
    /** A coordinator that took over knows an older offset. */
    forget(partition: number) {
      committed[partition] = Math.floor((committed[partition] as number) / 2)
    },
    isCommitted: () => logs.every((log, partition) => committed[partition] === log.length),
  }
}

type Store = ReturnType<typeof createStore>
/** Redis and the dead letters: what is safe. A device's readings come there in order, but for repeats. */
function createStore() {
  const kept = new Set<string>()
  const next = new Map<string, number>()
  const spoilt = new Set<string>()
  return {
    isSpoilt: (device: string) => spoilt.has(device),
    spoil: (device: string) => void (spoilt.delete(device) || spoilt.add(device)),
    has: (value: Buffer | null) => kept.has(String(value)),
    keep(values: (Buffer | null)[]) {
      for (const value of values) {
        const text = String(value)
        if (kept.has(text)) continue
        kept.add(text)
        const { device_id: device, payload: seq } = JSON.parse(text)
        if (seq !== (next.get(device) ?? 0)) throw new Error(`${text} is out of order`)
        next.set(device, seq + 1)
      }
    },
  }
}
