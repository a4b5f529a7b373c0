// The servers of a run, the processes that are measured on them, and what each of them has used.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Cluster, startCluster } from '@iot/stack/cluster'
import { root } from '@iot/stack/prepare'
import { Redis } from 'ioredis'
import kafkajs, { type Admin } from 'kafkajs'

const { Kafka, logLevel } = kafkajs
const TICKS_PER_SECOND = 100 // USER_HZ, on every Linux that Node runs on
const SAMPLE_MS = 50
const STUCK_MS = 120_000

/** What a process has used until now: CPU seconds of all its threads, peak resident memory in MB. */
export type Usage = { cpuS: number; peakMb: number }
/** A throughput: messages a second, and for each process CPU seconds per million messages and peak memory. */
export type Throughput = { perSecond: number; cpuSPerMillion: Record<string, number>; peakMb: Record<string, number> }
/** Something to start and measure: a program with its environment. */
export type Program = { name: string; command: string[]; env: Record<string, string> }
export type Running = { name: string; pid: number; stop(): Promise<void> }

/** From `/proc`; zeros when the process is gone. */
export function usage(pid: number): Usage {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ') // from the third field on: proc(5)
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const peakMb = Math.round(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024)
    return { cpuS: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND, peakMb }
  } catch {
    return { cpuS: 0, peakMb: 0 }
  }
}

export const residentMb = (pid: number): number =>
  Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024)

export const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/** Starts Kafka, Redis and Mosquitto. */
export async function createRig() {
  const cluster: Cluster = await startCluster()
  const broker = `127.0.0.1:${cluster.kafka.port}`
  const kafka = new Kafka({ brokers: [broker], logLevel: logLevel.NOTHING })
  const admin: Admin = kafka.admin()
  await admin.connect()
  const redis = new Redis(cluster.redis.port, '127.0.0.1')
  const logs = join(root, '.local', 'bench')
  mkdirSync(logs, { recursive: true })
  const running = new Set<Running>()
  const pids: Record<string, number> = {}
  for (const name of ['kafka', 'redis', 'mosquitto'] as const) pids[name] = cluster[name].pid?.() ?? 0

  return {
    cluster,
    broker,
    kafka,
    redis,
    /** The pids of the three servers, by name. */
    servers: pids,
    name: (what: string) => `${what}-${randomBytes(4).toString('hex')}`,
    /** Starts a program; its output goes to `.local/bench/`. */
    start({ name, command, env }: Program): Running {
      const log = openSync(join(logs, `${name.replaceAll(/\W+/g, '-')}.log`), 'a')
      const [program = '', ...args] = command
      const child: ChildProcess = spawn(program, args, {
        env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
        stdio: ['ignore', log, log],
      })
      const ended = new Promise<void>((resolve) => {
        child.once('exit', () => resolve())
        child.once('error', () => resolve())
      })
      const made: Running = {
        name,
        pid: child.pid ?? 0,
        async stop() {
          child.kill('SIGTERM')
          const timer = setTimeout(() => child.kill('SIGKILL'), 15_000)
          await ended
          clearTimeout(timer)
          running.delete(made)
        },
      }
      running.add(made)
      return made
    },
    async createTopic(partitions = 6): Promise<string> {
      const topic = `iot-data-${randomBytes(4).toString('hex')}`
      await admin.createTopics({ topics: [{ topic, numPartitions: partitions }], waitForLeaders: false })
      // kafkajs's own wait throws where a broker does not know the topic yet
      while ((await admin.fetchTopicOffsets(topic).catch(() => [])).length < partitions) await pause(SAMPLE_MS)
      return topic
    },
    deleteTopic: (topic: string) => admin.deleteTopics({ topics: [topic] }),
    /** Records in a topic. */
    async inKafka(topic: string): Promise<number> {
      const ends = await admin.fetchTopicOffsets(topic)
      return ends.reduce((sum, { high, low }) => sum + Number(high) - Number(low), 0)
    },
    /** Live updates published by Redis since its start or the last `forgetRedis`: one for each stored message. */
    async updates(): Promise<number> {
      return Number(/cmdstat_publish:calls=(\d+)/.exec(await redis.info('commandstats'))?.[1] ?? 0)
    },
    async forgetRedis(): Promise<void> {
      await redis.flushall()
      await redis.config('RESETSTAT')
    },
    async stop(): Promise<void> {
      await Promise.all([...running].map((one) => one.stop()))
      redis.disconnect()
      await admin.disconnect()
      await cluster.stop()
    },
  }
}

export type Rig = Awaited<ReturnType<typeof createRig>>

/**
 * Measures from the first message that comes out until `total` are out: start-up is not counted.
 * @param pids the processes to account for, by name
 * @param counted how many messages have come out until now
 * @throws when nothing comes out for two minutes
 */
export async function measure(
  pids: Record<string, number>,
  counted: () => Promise<number>,
  total: number,
): Promise<Throughput> {
  const used: Record<string, Usage> = {} // at the last sample; one that ends before the measurement keeps what it had
  const sample = async () => {
    const count = await counted()
    for (const [name, pid] of Object.entries(pids)) {
      const now = usage(pid)
      used[name] = now.peakMb > 0 ? now : (used[name] ?? now)
    }
    return { count, atMs: performance.now(), used: { ...used } }
  }
  type Sample = Awaited<ReturnType<typeof sample>>
  let first: Sample | undefined
  let last = await sample()
  let movedMs = performance.now()
  while (last.count < total) {
    await pause(SAMPLE_MS)
    const now = await sample()
    if (now.count > last.count) movedMs = now.atMs
    if (now.atMs - movedMs > STUCK_MS) throw new Error(`stuck at ${now.count} of ${total} messages: see .local/bench`)
    last = now
    if (now.count > 0) first ??= now
  }
  const from = first ?? last
  const messages = last.count - from.count
  const cpuSPerMillion: Record<string, number> = {}
  const peakMb: Record<string, number> = {}
  for (const [name, { cpuS, peakMb: mb }] of Object.entries(last.used)) {
    cpuSPerMillion[name] = ((cpuS - (from.used[name]?.cpuS ?? 0)) / messages) * 1e6
    peakMb[name] = mb
  }
  return { perSecond: (messages / (last.atMs - from.atMs)) * 1000, cpuSPerMillion, peakMb }
}
