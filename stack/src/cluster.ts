// The three servers side by side on free ports, for tests: local processes with data of their own, removed at the end.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { prepare, root } from './prepare.js'
import { freePort, type Server, startKafka, startMosquitto, startRedis } from './servers.js'

type Name = 'kafka' | 'redis' | 'mosquitto'
export type Cluster = Record<Name, Server> & { stop(): Promise<void> }

export type ClusterOptions = {
  /** The port of a proxy that clients are to use for Kafka. */
  kafkaProxy?: number
  /** Further options, as on the command line. */
  redisOptions?: string[]
  /** Further lines of Kafka's server.properties. */
  kafkaProperties?: string[]
  /** Where the local processes' data goes, and stays. */
  dir?: string
}

/** Starts Kafka, Redis and Mosquitto as local processes. */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  prepare((line) => process.stderr.write(`${line}\n`))
  const parent = join(root, '.local', 'test')
  mkdirSync(parent, { recursive: true })
  const dir = options.dir ?? mkdtempSync(join(parent, 'servers-'))
  return assemble(
    {
      kafka: (port) => startKafka(port, dir, options.kafkaProxy, options.kafkaProperties),
      redis: (port) => startRedis(port, dir, options.redisOptions),
      mosquitto: (port) => startMosquitto(port, dir),
    },
    () => options.dir ?? rmSync(dir, { recursive: true, force: true }),
  )
}

/** Starts the three at the same time; when one of them fails, none is left running. */
export async function assemble(
  starters: Record<Name, (port: number) => Promise<Server>>,
  cleanUp: () => unknown,
): Promise<Cluster> {
  const started: Server[] = []
  const stop = async () => {
    await Promise.all(started.map((server) => server.stop()))
    await cleanUp()
  }
  const begin = async (name: Name) => {
    const server = await starters[name](await freePort())
    started.push(server)
    return server
  }
  const results = await Promise.allSettled([begin('kafka'), begin('redis'), begin('mosquitto')])
  const [kafka, redis, mosquitto] = results.map((result) => (result.status === 'fulfilled' ? result.value : undefined))
  if (kafka && redis && mosquitto) return { kafka, redis, mosquitto, stop }
  await stop()
  throw results.find((result) => result.status === 'rejected')?.reason
}
