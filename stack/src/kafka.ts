// Apache Kafka as local processes (KRaft): one node, or several as a cluster.
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { claimPort } from './ports.js'
import { kafkaLib } from './prepare.js'
import { isKafkaUp, type Server, startProcess } from './servers.js'

/** How clients reach a node, where it is more than a port. */
export type KafkaOptions = {
  /** The port that clients are told to use, where a proxy stands before the server. */
  advertised?: number | undefined
  /** Further lines of server.properties. */
  properties?: string[] | undefined
  /** Another protocol for clients than PLAINTEXT, with the arguments for `format`. */
  access?: { protocol: string; format: string[]; isUp: typeof isKafkaUp }
}

const PLAINTEXT = { protocol: 'PLAINTEXT', format: [], isUp: isKafkaUp }
const SINGLE_HEAP = '-Xmx512m'
const CLUSTER_HEAP = '-Xmx320m'

/** One node. */
export async function startKafka(port: number, dataDir: string, options: KafkaOptions = {}): Promise<Server> {
  const [node] = await startKafkaNodes([port], dataDir, options)
  return node as Server
}

/** A node at each port; more than one are a cluster of three replicas at most, of which two must be in sync. */
export async function startKafkaNodes(ports: number[], dataDir: string, options: KafkaOptions = {}): Promise<Server[]> {
  const clusterId = kafkaId()
  const controllers = await Promise.all(ports.map(() => claimPort()))
  const voters = controllers.map((port, index) => `${index + 1}@127.0.0.1:${port}`).join(',')
  const results = await Promise.allSettled(
    ports.map((port, index) => {
      const name = ports.length === 1 ? 'kafka' : `kafka-${index + 1}`
      const controller = controllers[index] as number
      return startNode(
        { id: index + 1, port, controller, voters, clusterId, count: ports.length },
        join(dataDir, name),
        options,
      )
    }),
  )
  const nodes = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
  const failed = results.find((result) => result.status === 'rejected')
  if (!failed) return nodes
  await Promise.all(nodes.map((node) => node.stop()))
  throw failed.reason
}

type Node = { id: number; port: number; controller: number; voters: string; clusterId: string; count: number }

function startNode(node: Node, dir: string, options: KafkaOptions): Promise<Server> {
  const { access = PLAINTEXT } = options
  const logs = join(dir, 'data')
  mkdirSync(dir, { recursive: true })
  const file = join(dir, 'server.properties')
  writeFileSync(file, `${[...properties(node, logs, options), ...(options.properties ?? [])].join('\n')}\n`)
  const java = ['java', node.count === 1 ? SINGLE_HEAP : CLUSTER_HEAP, '-cp', `${kafkaLib}/*`]
  if (!existsSync(join(logs, 'meta.properties'))) {
    const format = ['kafka.tools.StorageTool', 'format', '-t', node.clusterId, '-c', file, ...access.format]
    const [program = '', ...args] = [...java, ...format]
    execFileSync(program, args, { stdio: 'ignore' })
  }
  const name = node.count === 1 ? 'Kafka' : `Kafka ${node.id}`
  return startProcess(name, node.port, join(dir, 'kafka.log'), [...java, 'kafka.Kafka', file], () =>
    access.isUp(node.port),
  )
}

function properties({ id, port, controller, voters, count }: Node, logs: string, options: KafkaOptions): string[] {
  const { protocol } = options.access ?? PLAINTEXT
  const replicas = Math.min(count, 3)
  const inSync = Math.max(replicas - 1, 1)
  return [
    'process.roles=broker,controller',
    `node.id=${id}`,
    `controller.quorum.voters=${voters}`,
    `listeners=${protocol}://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controller}`,
    `advertised.listeners=${protocol}://127.0.0.1:${options.advertised ?? port}`,
    'controller.listener.names=CONTROLLER',
    `listener.security.protocol.map=CONTROLLER:PLAINTEXT,${protocol}:${protocol}`,
    `inter.broker.listener.name=${protocol}`,
    `log.dirs=${logs}`,
    `default.replication.factor=${replicas}`,
    `min.insync.replicas=${inSync}`,
    `offsets.topic.replication.factor=${replicas}`,
    'offsets.topic.num.partitions=4',
    `transaction.state.log.replication.factor=${replicas}`,
    `transaction.state.log.min.isr=${inSync}`,
    'transaction.state.log.num.partitions=2',
    `share.coordinator.state.topic.replication.factor=${replicas}`,
    `share.coordinator.state.topic.min.isr=${inSync}`,
    'group.initial.rebalance.delay.ms=0',
    'auto.create.topics.enable=false',
  ]
}

/** Runs one of Kafka's own command line tools. @throws when it fails */
export function kafkaTool(mainClass: string, args: string[]): string {
  return execFileSync('java', ['-Xmx128m', '-cp', `${kafkaLib}/*`, mainClass, ...args], {
    encoding: 'utf8',
    stdio: 'pipe',
  })
}

// base64 of a first nibble 0 begins with A to D: a leading '-' would be read as an option
const kafkaId = () => Buffer.from(`0${randomUUID().replaceAll('-', '').slice(1)}`, 'hex').toString('base64url')
