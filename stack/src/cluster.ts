// The three servers side by side, for tests: local processes with data of their own, removed at the end.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { shareClasses, startKafkaNodes } from './kafka.js'
import { claimPort, onClaimedPort } from './ports.js'
import { prepare, root } from './prepare.js'
import type { Server } from './process.js'
import { startMosquitto, startRedis } from './servers.js'

export type Cluster = {
  /** All brokers as one: stopped, signalled and started together. */
  kafka: Server
  /** Each broker of Kafka; one where nothing else was asked for. */
  brokers: Server[]
  redis: Server
  mosquitto: Server
  stop(): Promise<void>
}

export type ClusterOptions = {
  /** A Kafka that is up already, in place of one of its own. */
  kafka?: Server
  /** How many brokers Kafka has: 1 by default. */
  kafkaBrokers?: number
  /** The port of a proxy that clients are to use for Kafka. */
  kafkaProxy?: number
  /** Further lines of Kafka's server.properties. */
  kafkaProperties?: string[]
  /** Further options, as on the command line. */
  redisOptions?: string[]
  /** Where the local processes' data goes, and stays. */
  dir?: string
}

/** Starts Kafka, Redis and Mosquitto as local processes. */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  prepare((line) => process.stderr.write(`${line}\n`))
  if (!options.kafka) await shareClasses()
  const parent = join(root, '.local', 'test')
  mkdirSync(parent, { recursive: true })
  const dir = options.dir ?? mkdtempSync(join(parent, 'servers-'))
  const { kafkaBrokers = 1, kafkaProxy: advertised, kafkaProperties, redisOptions } = options
  return assemble(
    {
      kafka: async (port) => {
        if (options.kafka) return [options.kafka]
        const more = await Promise.all(Array.from({ length: kafkaBrokers - 1 }, claimPort))
        return startKafkaNodes([port, ...more], dir, { advertised, properties: kafkaProperties })
      },
      redis: (port) => startRedis(port, dir, redisOptions),
      mosquitto: (port) => startMosquitto(port, dir),
    },
    () => options.dir ?? rmSync(dir, { recursive: true, force: true }),
  )
}

type Starters = {
  kafka(port: number): Promise<Server[]>
  redis(port: number): Promise<Server>
  mosquitto(port: number): Promise<Server>
}

/** Starts the three at the same time; when one of them fails, none is left running. */
export async function assemble(starters: Starters, cleanUp: () => unknown): Promise<Cluster> {
  const started: Server[] = []
  const stop = async () => {
    await Promise.all(started.map((server) => server.stop()))
    await cleanUp()
  }
  const begin = async (start: (port: number) => Promise<Server | Server[]>) => {
    const servers = [await onClaimedPort(start)].flat()
    started.push(...servers)
    return servers
  }
  const results = await Promise.allSettled([begin(starters.kafka), begin(starters.redis), begin(starters.mosquitto)])
  const [brokers, [redis] = [], [mosquitto] = []] = results.map((result) =>
    result.status === 'fulfilled' ? result.value : [],
  )
  if (brokers?.length && redis && mosquitto) return { kafka: together(brokers), brokers, redis, mosquitto, stop }
  await stop()
  throw results.find((result) => result.status === 'rejected')?.reason
}

/** Several servers as one: what is done to it is done to all of them at the same time. */
function together(servers: Server[]): Server {
  const [first, ...others] = servers
  if (!first) throw new Error('a cluster of no servers')
  if (others.length === 0) return first
  const all = async (act: (server: Server) => Promise<unknown>) => void (await Promise.all(servers.map(act)))
  return {
    name: 'Kafka',
    port: first.port,
    signal: (signal) => all((server) => server.signal(signal)),
    stop: () => all((server) => server.stop()),
    start: () => all((server) => server.start()),
    set onExit(listener: Server['onExit']) {
      for (const server of servers) server.onExit = listener
    },
  }
}
