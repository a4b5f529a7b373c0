// npm run rebuild: puts into Redis again what Kafka still has, after Redis lost it. Beside a running consumer too, for
// what is newer stays: it takes the consumer's configuration, joins no group and commits nothing.
import { pause } from '@iot/shared/backoff'
import { ConfigError, loadConfig } from '@iot/shared/config'
import type { DeadLetter } from '@iot/shared/contract'
import { describe } from '@iot/shared/errors'
import { kafkaOptions } from '@iot/shared/kafka/client'
import { createConnections, type KafkaConnections } from '@iot/shared/kafka/connections'
import { createReader } from '@iot/shared/kafka/reader'
import {
  type Bounds,
  boundsOf,
  findTopic,
  leadersOf,
  partitionsByLeader,
  type Topic,
} from '@iot/shared/kafka/topic-state'
import { createProblems } from '@iot/shared/problems'
import { redisAccess } from '@iot/shared/redis/config'
import { pino } from 'pino'
import { consumerNeeds, consumerSchema, redisLimits } from './config.js'
import { countSkipped } from './lag.js'
import { createLanes } from './lanes.js'
import { createRedisSink } from './redis/sink.js'
import { createStoring } from './storing.js'

const SERVICE = 'rebuild'
const LOOK_MS = 1000
const SAY_MS = 5000

const say = (line: string) => void process.stdout.write(`${line}\n`)
const complain = (line: string) => void process.stderr.write(`${SERVICE}: ${line}\n`)

/** Where each partition begins and ends now. @throws when one of them has no leader, or its broker does not say */
async function boundsNow(connections: KafkaConnections, topic: string, state: Topic): Promise<Map<number, Bounds>> {
  const found = new Map<number, Bounds>()
  for (const { partition, leader } of state.partitions)
    if (leader === null) throw new Error(`${topic}/${partition} has no leader`)
  for (const [leader, partitions] of partitionsByLeader(state))
    for (const [partition, bounds] of await boundsOf(connections, leader, topic, partitions)) {
      if (bounds instanceof Error) throw bounds
      found.set(partition, bounds)
    }
  return found
}

async function main() {
  if (process.argv.length > 2) throw new ConfigError(['it takes no arguments, only the consumer’s variables'])
  const config = loadConfig(consumerSchema, process.env, consumerNeeds)
  const topic = config.KAFKA_TOPIC
  const logger = pino({ name: SERVICE, level: 'warn' }, pino.destination(2))
  const fail = (error: unknown) => {
    complain(describe(error))
    process.exit(1)
  }
  const options = kafkaOptions(SERVICE, config, logger)
  const connections = createConnections(options)
  const state = await findTopic(connections, topic)
  const bounds = await boundsNow(connections, topic, state)
  const total = [...bounds.values()].reduce((sum, { low, high }) => sum + high - low, 0)
  say(`${topic}: ${total} records on ${bounds.size} partitions`)

  const sink = createRedisSink(
    {
      url: config.REDIS_URL,
      access: redisAccess(config),
      retentionSeconds: config.HISTORY_RETENTION_SECONDS,
      durability: config.REDIS_DURABILITY,
      whenFull: 'wait',
      limits: redisLimits(config),
      isReplay: true,
    },
    logger,
  )
  const left = new Map<string, number>()
  const leave = async ({ reason }: DeadLetter) => void left.set(reason, (left.get(reason) ?? 0) + 1)
  const write = createStoring({ sink, deadLetter: leave, topic, logger })
  let written = 0
  const lanes = createLanes({
    batchSize: config.BATCH_SIZE,
    batchIntervalMs: 0,
    write,
    onWritten(_partition, _next, count) {
      written += count
      reader.wake()
    },
    onFatal: fail,
    logger,
  })
  lanes.begin([...bounds.keys()], 0)
  const problems = createProblems(() => performance.now())
  const reader = createReader({
    connections: createConnections(options),
    topic,
    topicId: state.id,
    lanes: lanes.byPartition,
    from: new Map([...bounds].map(([partition, { low }]) => [partition, { offset: low, topicId: state.id }])),
    problems,
    onMoved: countSkipped,
    onStale: () => {},
    onFatal: fail,
    logger,
  })
  const isRead = () => [...bounds].every(([partition, { high }]) => (reader.positions.get(partition) ?? 0) >= high)

  /** Leaders may have moved. */
  const look = async () => {
    try {
      const found = await findTopic(connections, topic)
      if (found.id !== state.id) throw new ConfigError(['the topic was created again meanwhile: begin again'])
      reader.adopt(leadersOf(found))
      return problems.lasting(SAY_MS)
    } catch (error) {
      if (error instanceof ConfigError) throw error
      return describe(error)
    }
  }

  sink.start()
  for (let saidMs = performance.now(); ; ) {
    const problem = await look()
    if (isRead()) break
    if (performance.now() - saidMs >= SAY_MS) {
      saidMs = performance.now()
      const waits = sink.check() ?? problem
      say(`${written} of ${total}${waits === null ? '' : `; waiting: ${waits}`}`)
    }
    await pause(LOOK_MS)
  }
  reader.stop()
  await lanes.drain()
  say(`${written} records read; in Redis ${left.size === 0 ? 'all of them' : 'all but'}`)
  for (const [reason, count] of left) say(`  ${count} ${reason}`)
  process.exit(left.has('redis_rejected') ? 1 : 0)
}

main().catch((error) => {
  if (error instanceof ConfigError) for (const line of error.lines) complain(line)
  else complain(describe(error))
  process.exit(1)
})
