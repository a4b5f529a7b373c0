// The services against a broker, a Kafka and a Redis that begin to talk nonsense, connection after connection, while
// devices send. A service that ends by itself is started again, and counted.
import { withDeadline } from '@iot/shared/lifecycle'
import type { Cluster, ClusterOptions } from '@iot/stack/cluster'
import { createPlatform, type Platform, portsOf, type Service } from '../platform.js'
import { type Load, type Row, runCell } from './cell.js'
import { createHostilePeer, type HostilePeer, type Session } from './hostile-peer.js'
import { type PeerName, PROTOCOLS } from './protocols.js'

export const PEERS = ['mqtt', 'kafka', 'redis'] as const

const LOAD: Load = { devices: 10, ratePerSecond: 100, beforeMs: 500, afterMs: 500 }
const ROUND = 100
const PLATFORMS = 3
const START_MS = 30_000
const SESSION_MS = 5000 // on average, the pauses between two connections included
/** What the services call themselves: clients of a test are not struck. */
const CLIENTS = ['mqtt-kafka-bridge', 'kafka-redis-consumer']

/** `ended` counts services that ended by themselves. */
export type HostileRow = Row & { sessions: number; ended: number }
export type Round = {
  row: HostileRow
  sessions: Session[]
  /** Of each service that ended, the exit code and the end of its log. */
  lastWords: string[]
}

export type Stage = {
  /** @param seed of the first session; each one after it has the next */
  round(name: PeerName, seed: number, sessions: number): Promise<Round>
  close(): Promise<void>
}

/**
 * Servers behind hostile peers, and services that live through many rounds.
 * @param platforms how many bridges and consumers, each pair with devices of its own
 */
export async function openStage(
  start: (options: ClusterOptions) => Promise<Cluster>,
  platforms: number,
): Promise<Stage> {
  const [mqtt, kafka, redis] = await Promise.all(PEERS.map((name) => createHostilePeer(PROTOCOLS[name])))
  const peers = { mqtt, kafka, redis } as Record<PeerName, HostilePeer>
  const cluster = await start({ kafkaProxy: peers.kafka.port })
  peers.mqtt.target = cluster.mosquitto.port
  peers.kafka.target = cluster.kafka.port
  peers.redis.target = cluster.redis.port
  const env = {
    bridge: { MQTT_URL: `mqtt://127.0.0.1:${peers.mqtt.port}` },
    consumer: { REDIS_URL: `redis://127.0.0.1:${peers.redis.port}` },
  }
  const all = await Promise.all(Array.from({ length: platforms }, () => createPlatform(portsOf(cluster))))
  let isOpen = true
  let lastWords: string[] = []

  /** Starts a service again whenever it ends, as a supervisor does. */
  const supervise = async (service: Service, own: NodeJS.ProcessEnv) => {
    while (isOpen) {
      const code = await service.ended()
      if (!isOpen) return
      lastWords.push(`exit code ${code}: ${lastLines(service.log())}`)
      await service.start(own).catch(() => {}) // it may end while it starts
    }
  }
  for (const platform of all) {
    await platform.up(env)
    void supervise(platform.bridge, env.bridge)
    void supervise(platform.consumer, env.consumer)
  }

  return {
    async round(name, seed, sessions) {
      lastWords = []
      let struck: Promise<Session[]> | undefined
      const strike = () => peers[name].strike(seed, sessions, name === 'kafka' ? isOurs : undefined)
      const harm = async () => {
        struck ??= strike()
        await withDeadline(struck, START_MS + sessions * SESSION_MS, `${sessions} sessions from seed ${seed}`).catch(
          (error) => {
            throw new Error(`${error.message}: ${peers[name].state()}\n${all.map(lastWordsOf).join('\n')}`)
          },
        )
      }
      const rows = await Promise.all(all.map((platform) => runCell(platform, cluster, `${name}-${seed}`, LOAD, harm)))
      const row = { ...together(rows), sessions, ended: lastWords.length }
      return { row, sessions: (await struck) ?? [], lastWords }
    },
    async close() {
      isOpen = false
      await Promise.all(all.map((platform) => platform.down()))
      await cluster.stop()
      await Promise.all(Object.values(peers).map((peer) => peer.close()))
    },
  }
}

const lastWordsOf = ({ bridge, consumer }: Platform) => `${lastLines(bridge.log())}\n${lastLines(consumer.log())}`
const isOurs = (first: Buffer) => CLIENTS.some((client) => first.includes(client))
const lastLines = (log: string) => log.trimEnd().split('\n').slice(-15).join('\n')

const MOST = ['recovery_s', 'ingest_pause_s', 'updates_pause_s', 'bridge_mb', 'consumer_mb']

/** One row of several: counts are added, of times and sizes the largest stays. */
function together<T extends Row>([first, ...others]: T[]): T {
  if (!first) throw new Error('no rows')
  const sum: Record<string, string | number> = { ...first }
  for (const row of others) {
    for (const [column, value] of Object.entries(row)) {
      if (typeof value !== 'number') continue
      const before = sum[column] as number
      sum[column] = MOST.includes(column) ? Math.max(before, value) : before + value
    }
  }
  return sum as T
}

/** Whether nothing is missing and all is in order. What a hostile broker says is stored too, as what it is: foreign. */
export const isClean = (name: PeerName, row: Row): boolean =>
  row.missing + row.out_of_order + row.missing_in_history + row.wrong_last_state === 0 &&
  (name === 'mqtt' || row.foreign === 0)

/** `npm run chaos -- --hostile`: rounds of sessions with each kind of peer. @returns one row for each, and how many rounds were not clean */
export async function runHostile(options: {
  peers: readonly PeerName[]
  seed: number
  sessions: number
  start: (options: ClusterOptions) => Promise<Cluster>
  say: (line: string) => void
}): Promise<{ rows: HostileRow[]; bad: number }> {
  const { peers, seed, sessions, start, say } = options
  const stage = await openStage(start, PLATFORMS)
  process.once('SIGINT', () => void stage.close().then(() => process.exit(1)))
  const rows: HostileRow[] = []
  let bad = 0
  try {
    for (const name of peers) {
      const rounds: HostileRow[] = []
      for (let done = 0; done < sessions; done += ROUND) {
        const from = seed + done
        const count = Math.min(ROUND, sessions - done)
        const round = await stage.round(name, from, count)
        rounds.push(round.row)
        say(JSON.stringify(round.row))
        for (const words of round.lastWords) say(words)
        if (isClean(name, round.row)) continue
        bad++
        for (const session of round.sessions) say(JSON.stringify(session))
        say(`not clean: npm run chaos -- --hostile --only ${name} --seed ${from} --sessions ${count}`)
      }
      rows.push({ ...together(rounds), fault: name })
    }
  } finally {
    await stage.close()
  }
  return { rows, bad }
}
