// The three servers on free ports with data of their own, for tests; removed when stopped.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { prepare, root } from './prepare.js'
import { freePort, type Server, startKafka, startMosquitto, startRedis } from './servers.js'

export type Cluster = { kafka: Server; redis: Server; mosquitto: Server; stop(): Promise<void> }

/** Starts Kafka, Redis and Mosquitto side by side. */
export async function startCluster(): Promise<Cluster> {
  prepare((line) => process.stderr.write(`${line}\n`))
  const parent = join(root, '.local', 'test')
  mkdirSync(parent, { recursive: true })
  const dir = mkdtempSync(join(parent, 'servers-'))
  const started: Server[] = []
  const stop = async () => {
    await Promise.all(started.map((server) => server.stop()))
    rmSync(dir, { recursive: true, force: true })
  }
  const begin = async (start: (port: number, dataDir: string) => Promise<Server>) => {
    const server = await start(await freePort(), dir)
    started.push(server)
    return server
  }
  const results = await Promise.allSettled([begin(startKafka), begin(startRedis), begin(startMosquitto)])
  const [kafka, redis, mosquitto] = results.map((result) => (result.status === 'fulfilled' ? result.value : undefined))
  if (kafka && redis && mosquitto) return { kafka, redis, mosquitto, stop }
  await stop()
  throw results.find((result) => result.status === 'rejected')?.reason
}
