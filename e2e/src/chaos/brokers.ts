// A cluster of three Kafka brokers struck under load: one at a time, two at once, one after the other, and leaders and
// replicas moved as an operator does.
import type { Cluster } from '@iot/stack/cluster'
import { kafkaTool } from '@iot/stack/kafka'
import { eventually, type Platform } from '../platform.js'
import { ask } from '../topic-reader.js'
import type { Cell } from './cell.js'
import { componentsOf, KINDS, pause, strike } from './faults.js'
import { inSync, ledAs, type PartitionState, partitionsOf } from './replicas.js'

const AWAY_MS = 20_000 // longer than a broker may be silent before others lead: broker.session.timeout.ms, 9 s
const TWO_AWAY_MS = 25_000
const MOVED_MS = 60_000
const SETTLED_MS = 3000

/** Restarts each broker, the next when all have caught up. */
export async function rollingRestart(platform: Platform, cluster: Cluster): Promise<void> {
  for (const broker of cluster.brokers) {
    await broker.stop()
    await broker.start()
    await inSync(platform)
  }
}

/** The cells of `npm run chaos` with three brokers; a further one is a name and what it does. */
export function brokerCells(platform: Platform, cluster: Cluster): Cell[] {
  const brokers = componentsOf(cluster).filter((component) => component.startsWith('broker-'))
  const struck = KINDS.flatMap((kind) =>
    brokers.map((component) => ({
      name: `${component}-${kind}`,
      harm: () => strike(platform, cluster, { component, kind }, { frozenMs: AWAY_MS, downMs: AWAY_MS }),
    })),
  )
  return [
    ...struck,
    { name: 'two-brokers-SIGKILL', harm: () => killTwo(platform, cluster) },
    { name: 'rolling-restart', harm: () => rollingRestart(platform, cluster) },
    { name: 'rolling-restart-again', harm: () => rollingRestart(platform, cluster) },
    { name: 'leader-election', harm: () => electPreferred(platform, cluster) },
    { name: 'reassignment', harm: () => reassign(platform) },
  ]
}

/** Fewer replicas than `min.insync.replicas` are left, and no quorum of controllers. */
async function killTwo(platform: Platform, { brokers }: Cluster) {
  const two = brokers.slice(0, 2)
  await Promise.all(two.map((broker) => broker.signal('SIGKILL')))
  await pause(TWO_AWAY_MS)
  await Promise.all(two.map((broker) => broker.start()))
  await inSync(platform)
}

const leadsByPreference = ({ leader, replicas }: PartitionState) => leader === replicas[0]

/** Restarts a broker, so that it leads nothing, and gives back to it by Kafka's own tool what it should lead. */
async function electPreferred(platform: Platform, cluster: Cluster) {
  const { replicas: [preferred = 0] = [] } = (await partitionsOf(platform))[0] ?? {}
  const broker = cluster.brokers[preferred - 1]
  if (!broker) throw new Error('no broker is preferred')
  await broker.stop()
  await ledAs(platform, ({ leader }) => leader !== preferred && leader > 0, 'others lead')
  await broker.start()
  await inSync(platform)
  const server = ['--bootstrap-server', `127.0.0.1:${cluster.kafka.port}`]
  const election = ['--election-type', 'preferred', '--all-topic-partitions']
  await kafkaTool('org.apache.kafka.tools.LeaderElectionCommand', [...server, ...election])
  await ledAs(platform, leadsByPreference, 'the preferred ones lead')
  await pause(SETTLED_MS)
}

/** Takes the leader's replica of every partition away, then gives it back as the last one. */
async function reassign(platform: Platform) {
  const before = await partitionsOf(platform)
  const next = (move: (replicas: number[]) => number[]) =>
    before.map(({ partition, replicas }) => ({ partition, replicas: move(replicas) }))
  await assign(
    platform,
    next(([, ...others]) => others),
  )
  await assign(
    platform,
    next(([first = 0, ...others]) => [...others, first]),
  )
  await inSync(platform)
  await pause(SETTLED_MS)
}

async function assign(platform: Platform, wanted: { partition: number; replicas: number[] }[]) {
  const { kafka, topic } = platform
  await ask(kafka, async (admin) => {
    await admin.alterPartitionReassignments({ topics: [{ topic, partitionAssignment: wanted }] })
    return true
  })
  const isDone = async () => {
    const now = await partitionsOf(platform)
    return wanted.every(({ partition, replicas }) => {
      const found = now.find((state) => state.partition === partition)
      return found && sorted(found.replicas) === sorted(replicas) && sorted(found.isr) === sorted(replicas)
    })
  }
  await eventually(isDone, 'the replicas have moved', MOVED_MS)
}

const sorted = (ids: number[]) => [...ids].sort().join()
