// Apache Kafka as local processes (KRaft): one node, or several as a cluster.
import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { claimPort } from './ports.js'
import { kafkaLib } from './prepare.js'
import { type Server, startProcess } from './process.js'
import { isKafkaUp } from './servers.js'

const SINGLE_HEAP = ['-Xmx512m']
const CLUSTER_HEAP = ['-Xmx320m', '-XX:+UseSerialGC'] // three of them, and threads for collecting in one only
const MOST_REPLICAS = 3
const CLASS_PATH = ['-cp', `${kafkaLib}/*`]
const CLASSES = join(kafkaLib, '..', 'classes.jsa')

/** How clients reach a node, where it is more than a port. */
export type KafkaOptions = {
  /** The port that clients are told to use, where a proxy stands before the server. */
  advertised?: number | undefined
  /** Further lines of server.properties. */
  properties?: string[] | undefined
  /** Further options of Java. */
  java?: string[]
  /** Another protocol for clients than PLAINTEXT, with the arguments for `format`. */
  access?: { protocol: string; format: string[]; isUp: typeof isKafkaUp }
}

const PLAINTEXT = { protocol: 'PLAINTEXT', format: [], isUp: isKafkaUp }

type Node = { id: number; count: number; port: number; controller: number; voters: string; dir: string }

/** How many brokers `KAFKA_BROKER_COUNT` asks for. @throws when that is neither 1, the default, nor 3 */
export function brokerCount(env: NodeJS.ProcessEnv): number {
  const count = Number(env.KAFKA_BROKER_COUNT || 1)
  if (count !== 1 && count !== 3) throw new Error('KAFKA_BROKER_COUNT must be 1 or 3')
  return count
}

/** One node. */
export async function startKafka(port: number, dataDir: string, options: KafkaOptions = {}): Promise<Server> {
  const [node] = await startKafkaNodes([port], dataDir, options)
  return node as Server
}

/**
 * A broker and controller at each port. Several are a cluster: topics have three replicas, of which two must be in sync.
 * When one of them does not start, none is left running.
 */
export async function startKafkaNodes(ports: number[], dataDir: string, options: KafkaOptions = {}): Promise<Server[]> {
  const count = ports.length
  const controllers = await Promise.all(ports.map(claimPort))
  const voters = controllers.map((port, index) => `${index + 1}@127.0.0.1:${port}`).join(',')
  const nodes = ports.map((port, index): Node => {
    const dir = join(dataDir, count === 1 ? 'kafka' : `kafka-${index + 1}`)
    return { id: index + 1, count, port, controller: controllers[index] as number, voters, dir }
  })
  const clusterId = nodes.map(clusterIdOf).find((id) => id !== undefined) ?? newClusterId()
  const results = await Promise.allSettled(nodes.map((node) => startNode(node, clusterId, options)))
  const started = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
  const failed = results.find((result) => result.status === 'rejected')
  if (!failed) return started
  await Promise.all(started.map((server) => server.stop()))
  throw failed.reason
}

/** Runs one of Kafka's own command line tools. @returns its standard output @throws when it fails */
export async function kafkaTool(mainClass: string, args: string[]): Promise<string> {
  const command = [...sharedClasses(), '-Xlog:disable', '-Xmx128m', ...CLASS_PATH, mainClass, ...args]
  const { stdout } = await promisify(execFile)('java', command)
  return stdout
}

/**
 * Starts a broker once and keeps its classes as it has loaded them: later starts, of tools too, take half the time
 * (application class data sharing: JEP 350). Without it, where another Java runs or the disk is full, all works as well.
 */
export async function shareClasses(): Promise<void> {
  if (existsSync(CLASSES)) return
  const dir = mkdtempSync(join(tmpdir(), 'kafka-classes-'))
  const partial = `${CLASSES}-${process.pid}`
  try {
    const server = await startKafka(await claimPort(), dir, { java: [`-XX:ArchiveClassesAtExit=${partial}`] })
    await server.stop()
    renameSync(partial, CLASSES)
  } catch {
    // what is wrong is told when servers are started for their own sake
  } finally {
    rmSync(dir, { recursive: true, force: true })
    rmSync(partial, { force: true })
  }
}

const sharedClasses = () => (existsSync(CLASSES) ? [`-XX:SharedArchiveFile=${CLASSES}`] : [])

async function startNode(node: Node, clusterId: string, options: KafkaOptions): Promise<Server> {
  const { access = PLAINTEXT, java = sharedClasses() } = options
  const { id, count, port, controller, dir } = node
  mkdirSync(dir, { recursive: true })
  const file = join(dir, 'server.properties')
  writeFileSync(file, `${[...properties(node, access.protocol, options), ...(options.properties ?? [])].join('\n')}\n`)
  if (clusterIdOf(node) === undefined) {
    await kafkaTool('kafka.tools.StorageTool', ['format', '-t', clusterId, '-c', file, ...access.format])
  }
  return startProcess({
    name: count === 1 ? 'Kafka' : `Kafka ${id}`,
    port,
    furtherPorts: [controller],
    logFile: join(dir, 'kafka.log'),
    command: ['java', ...java, ...(count === 1 ? SINGLE_HEAP : CLUSTER_HEAP), ...CLASS_PATH, 'kafka.Kafka', file],
    isUp: () => access.isUp(port),
  })
}

function properties({ id, count, port, controller, voters, dir }: Node, protocol: string, options: KafkaOptions) {
  const replicas = Math.min(count, MOST_REPLICAS)
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
    `log.dirs=${dataOf(dir)}`,
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

const dataOf = (dir: string) => join(dir, 'data')

/** The id of the cluster that a node's data belong to; undefined where it has none yet. */
function clusterIdOf({ dir }: Node): string | undefined {
  try {
    return /^cluster\.id=(\S+)$/m.exec(readFileSync(join(dataOf(dir), 'meta.properties'), 'utf8'))?.[1]
  } catch {
    return undefined
  }
}

// base64 of a first nibble 0 begins with A to D: a leading '-' would be read as an option
const newClusterId = () => Buffer.from(`0${randomUUID().replaceAll('-', '').slice(1)}`, 'hex').toString('base64url')
