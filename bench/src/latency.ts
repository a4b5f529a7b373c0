// From a device's publish to its live update: how long it takes at a given rate, and the highest rate that is held.
import { fork } from 'node:child_process'
import { join } from 'node:path'
import { root } from '@iot/stack/prepare'
import * as contenders from './contenders.js'
import { type Program, pause, type Rig, residentMb, usage } from './rig.js'

export const DEVICES = 1000
const HELD_P99_MS = 1000
const RSS_SAMPLES = 10
const IDLE_SETTLE_MS = 15_000

/** Times in ms; CPU in cores, of each process. */
export type Latency = {
  contender: string
  rate: number
  seconds: number
  p50: number
  p95: number
  p99: number
  max: number
  /** Every update came, p99 within a second, and the last quarter was not slower than twice the first. */
  held: boolean
  cores: Record<string, number>
  /** Memory of the services at ten moments of the run, in MB. */
  rssMb: Record<string, number[]>
}

type Seen = {
  expected: number
  seen: number
  p50: number
  p95: number
  p99: number
  max: number
  firstQuarter: number
  lastQuarter: number
}

/** @param watch called with the pids when the load begins; what it returns is called at its end */
export async function endToEnd(
  rig: Rig,
  rate: number,
  seconds: number,
  choose: typeof platform,
  watch = (_pids: Record<string, number>) => () => {},
): Promise<Latency[]> {
  const topic = await rig.createTopic()
  const target = { prefix: rig.name('devices'), topic, clientId: rig.name('bridge'), group: rig.name('group') }
  await rig.forgetRedis()
  const running = choose(rig, target).map((program) => rig.start(program))
  if (running.length === 0) return []
  const fleet = fork(join(root, 'bench', 'dist', 'fleet.js'), {
    env: {
      MQTT_PORT: String(rig.cluster.mosquitto.port),
      REDIS_PORT: String(rig.cluster.redis.port),
      PREFIX: target.prefix,
      RATE: String(rate),
      SECONDS: String(seconds),
      DEVICES: String(DEVICES),
    },
  })
  const told = () =>
    new Promise<unknown>((resolve, reject) => {
      fleet.once('message', resolve)
      fleet.once('exit', () => reject(new Error('the fleet ended early')))
    })
  try {
    const pids: Record<string, number> = { ...rig.servers, fleet: fleet.pid ?? 0 }
    for (const { name, pid } of running) pids[name] = pid
    const used = () => Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, usage(pid).cpuS]))
    await told()
    const [before, startMs] = [used(), performance.now()]
    const rssMb: Record<string, number[]> = Object.fromEntries(running.map(({ name }) => [name, []]))
    const sampler = setInterval(
      () => {
        for (const { name, pid } of running) rssMb[name]?.push(residentMb(pid))
      },
      (seconds * 1000) / RSS_SAMPLES,
    )
    const unwatch = watch(pids)
    const seen = (await told().finally(() => {
      clearInterval(sampler)
      unwatch()
    })) as Seen
    const tookS = (performance.now() - startMs) / 1000
    const after = used()
    const cores = Object.fromEntries(
      Object.keys(pids).map((name) => [name, ((after[name] ?? 0) - (before[name] ?? 0)) / tookS]),
    )
    const { p50, p95, p99, max } = seen
    const grows = seen.lastQuarter > Math.max(2 * seen.firstQuarter, 50)
    const held = seen.seen === seen.expected && p99 <= HELD_P99_MS && !grows
    const contender = running[0]?.name.replace(/ .*/, '') ?? ''
    return [{ contender, rate, seconds, p50, p95, p99, max, held, cores, rssMb }]
  } finally {
    fleet.kill()
    await Promise.all(running.map((one) => one.stop()))
    await rig.deleteTopic(topic)
  }
}

const named = (program: Program, name: string) => ({ ...program, name })
export const platform = (rig: Rig, target: contenders.Target): Program[] => [
  named(contenders.bridge(rig, target), 'platform bridge'),
  named(contenders.consumer(rig, target), 'platform consumer'),
]
const pythonStack = (rig: Rig, target: contenders.Target): Program[] =>
  (['bridge', 'consumer'] as const).flatMap((part) =>
    contenders.pythonStack(rig, target, part).map((program) => named(program, `python ${part}`)),
  )

/** The platform at each rate, the Python stack beside it at the first. */
export async function latency(rig: Rig, rates: number[], seconds: number, say: (line: string) => void) {
  const rows: Latency[] = []
  await endToEnd(rig, 5000, 10, platform) // not counted: what starts cold is Kafka
  const add = (more: Latency[]) => {
    for (const { contender, rate, p50, p99, held } of more)
      say(
        `${contender} at ${rate} msg/s: p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms${held ? '' : ', not held'}`,
      )
    rows.push(...more)
  }
  for (const [index, rate] of rates.entries()) {
    add(await endToEnd(rig, rate, seconds, platform))
    if (index === 0) add(await endToEnd(rig, rate, seconds, pythonStack))
  }
  return rows
}

/** Raises the rate until it is not held any more; answers every step. */
export async function highestRate(rig: Rig, from: number, step: number, seconds: number, say: (line: string) => void) {
  const rows: Latency[] = []
  for (let rate = from; rows.at(-1)?.held ?? true; rate += step) {
    rows.push(...(await endToEnd(rig, rate, seconds, platform)))
    const last = rows.at(-1)
    say(`${rate} msg/s ${last?.held ? 'held' : 'not held'}: p99 ${last?.p99.toFixed(0)} ms`)
  }
  return rows
}

/** The CPU that both services take while nothing happens, in percent of a core. */
export async function idle(rig: Rig, seconds: number) {
  const topic = await rig.createTopic()
  const target = { prefix: rig.name('devices'), topic, clientId: rig.name('bridge'), group: rig.name('group') }
  const running = platform(rig, target).map((program) => rig.start(program))
  try {
    await pause(IDLE_SETTLE_MS)
    const before = running.map(({ pid }) => usage(pid).cpuS)
    await pause(seconds * 1000)
    return running.map(({ name, pid }, index) => ({
      service: name,
      seconds,
      percentOfACore: ((usage(pid).cpuS - (before[index] ?? 0)) / seconds) * 100,
      rssMb: residentMb(pid),
    }))
  } finally {
    await Promise.all(running.map((one) => one.stop()))
    await rig.deleteTopic(topic)
  }
}
