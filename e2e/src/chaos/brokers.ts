// A cluster of three Kafka brokers struck under load: one at a time, two at once, one after the other, and leaders
// moved by the operator.

import type { Cluster } from '@iot/stack/cluster'
import { kafkaTool } from '@iot/stack/kafka'
import type { Server } from '@iot/stack/servers'
import { eventually, type Platform } from '../platform.js'
import { type Load, type Row, runCell } from './cell.js'

const DOWN_MS = 20_000 // longer than a broker may be silent before others lead: broker.session.timeout.ms, 9 s
const TWO_DOWN_MS = 25_000
const IN_SYNC_MS = 120_000

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Waits until every partition of the platform's topic has all its replicas in sync. */
export async function inSync(platform: Platform, brokers: number): Promise<void> {
  const admin = platform.kafka.admin()
  await admin.connect()
  try {
    await eventually(
      async () => {
        const { topics } = await admin.fetchTopicMetadata({ topics: [platform.topic] })
        return topics.every((topic) => topic.partitions.every(({ isr }) => isr.length === brokers))
      },
      'all replicas in sync',
      IN_SYNC_MS,
    )
  } finally {
    await admin.disconnect()
  }
}

/** Ends brokers, leaves them away, starts them again and waits until they have caught up. */
async function away(
  platform: Platform,
  cluster: Cluster,
  brokers: Server[],
  signal: 'SIGKILL' | 'SIGTERM',
  ms: number,
) {
  await Promise.all(brokers.map((broker) => (signal === 'SIGKILL' ? broker.signal(signal) : broker.stop())))
  await pause(ms)
  await Promise.all(brokers.map((broker) => broker.start()))
  await inSync(platform, cluster.brokers.length)
}

export async function killBroker(platform: Platform, cluster: Cluster, broker: Server): Promise<void> {
  await away(platform, cluster, [broker], 'SIGKILL', DOWN_MS)
}

/** Restarts each broker, the next when all have caught up. */
export async function rollingRestart(platform: Platform, cluster: Cluster): Promise<void> {
  for (const broker of cluster.brokers) await away(platform, cluster, [broker], 'SIGTERM', 0)
}

/** Moves every partition to other brokers, then every leader to the one that is preferred. */
async function moveLeaders(platform: Platform, cluster: Cluster): Promise<void> {
  const admin = platform.kafka.admin()
  await admin.connect()
  try {
    const { topics } = await admin.fetchTopicMetadata({ topics: [platform.topic] })
    const [{ partitions = [] } = {}] = topics
    const partitionAssignment = partitions.map(({ partitionId, replicas }) => ({
      partition: partitionId,
      replicas: [...replicas.slice(1), ...replicas.slice(0, 1)],
    }))
    await admin.alterPartitionReassignments({ topics: [{ topic: platform.topic, partitionAssignment }] })
    await inSync(platform, cluster.brokers.length)
    const server = ['--bootstrap-server', `127.0.0.1:${cluster.kafka.port}`]
    const election = ['--election-type', 'preferred', '--all-topic-partitions']
    await kafkaTool('org.apache.kafka.tools.LeaderElectionCommand', [...server, ...election])
    await pause(5000)
  } finally {
    await admin.disconnect()
  }
}

export async function strikeBrokers(
  platform: Platform,
  cluster: Cluster,
  load: Load,
  say: (line: string) => void,
): Promise<Row[]> {
  const rows: Row[] = []
  const cell = async (name: string, harm: () => Promise<unknown>) => {
    const row = await runCell(platform, cluster, name, load, async () => {
      await harm()
      return []
    })
    rows.push(row)
    say(JSON.stringify(row))
  }
  for (const [index, broker] of cluster.brokers.entries()) {
    await cell(`broker-${index + 1}-SIGKILL`, () => killBroker(platform, cluster, broker))
  }
  for (const [index, broker] of cluster.brokers.entries()) {
    await cell(`broker-${index + 1}-SIGSTOP`, async () => {
      await broker.signal('SIGSTOP')
      await pause(DOWN_MS)
      await broker.signal('SIGCONT')
      await inSync(platform, cluster.brokers.length)
    })
  }
  for (const [index, broker] of cluster.brokers.entries()) {
    await cell(`broker-${index + 1}-SIGTERM`, () => away(platform, cluster, [broker], 'SIGTERM', DOWN_MS))
  }
  await cell('two-brokers-SIGKILL', () => away(platform, cluster, cluster.brokers.slice(0, 2), 'SIGKILL', TWO_DOWN_MS))
  await cell('rolling-restart', () => rollingRestart(platform, cluster))
  await cell('rolling-restart-again', () => rollingRestart(platform, cluster))
  await cell('leaders-moved', () => moveLeaders(platform, cluster))
  return rows
}
