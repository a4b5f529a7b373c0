// npm run chaos: every component killed, frozen and stopped under load, on real local servers, every reading counted.
//   npm run chaos [-- --only bridge,kafka-SIGSTOP] [--devices 200] [--rate 2000] [--out docs]
//   npm run chaos -- --random 15m --seed 7
//   npm run chaos -- --outages       servers away for minutes, absent at the start, their disks full
//   npm run chaos -- --hostile [--only mqtt] [--seed 7] [--sessions 500]     servers that begin to talk nonsense
//   npm run chaos -- --writes        each service killed at its n-th write, n = 1 to 50; Linux, strace
//   KAFKA_BROKER_COUNT=3 npm run chaos          three Kafka brokers: each struck in turn, two at once, restarted in turn
import { parseArgs } from 'node:util'
import { startCluster } from '@iot/stack/cluster'
import { brokerCount } from '@iot/stack/kafka'
import { createPlatform, portsOf } from '../platform.js'
import { brokerCells } from './brokers.js'
import { type Cell, runCells } from './cell.js'
import type { Span } from './check.js'
import { COMPONENTS, componentsOf, type Fault, KINDS, pause, strike } from './faults.js'
import { PEERS, runHostile } from './hostile.js'
import { outages, smallDisks, unmountDisks } from './outages.js'
import { createRandom } from './random.js'
import { inSync } from './replicas.js'
import { writeReport } from './report.js'
import { WRITES_LOAD, writeCells } from './writes.js'

const FROZEN_MS = 20_000
const RANDOM_GAP_MS = [10_000, 20_000] as const
const TWO_AT_ONCE = 0.2

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string' },
    devices: { type: 'string' }, // 200, or as many as a mode says
    rate: { type: 'string' },
    random: { type: 'string' },
    outages: { type: 'boolean', default: false },
    hostile: { type: 'boolean', default: false },
    writes: { type: 'boolean', default: false },
    sessions: { type: 'string', default: '500' },
    seed: { type: 'string', default: '1' },
    out: { type: 'string', default: '.local/chaos' },
  },
})
const say = (line: string) => void process.stdout.write(`${line}\n`)
const usual = flags.writes ? WRITES_LOAD : { devices: 200, rate: 2000 }
const positive = (name: 'devices' | 'rate' | 'seed' | 'sessions') => {
  const value = Number(flags[name] ?? usual[name as keyof typeof usual])
  if (Number.isInteger(value) && value > 0) return value
  say(`--${name} must be a whole number above 0`)
  return process.exit(1)
}
const load = { devices: positive('devices'), ratePerSecond: positive('rate'), beforeMs: 5000, afterMs: 3000 }
const seed = positive('seed')
const only = flags.only?.split(',') // the beginnings of rows' names
const minutes = flags.random ? Number(/^(\d+)m$/.exec(flags.random)?.[1]) : 0
if (Number.isNaN(minutes)) {
  say('--random must be a number of minutes such as 15m')
  process.exit(1)
}

const kafkaBrokers = brokers()
if (flags.hostile) await hostile()
const cluster = await startCluster({ kafkaBrokers, ...(flags.outages ? { dir: smallDisks(kafkaBrokers) } : {}) })
const platform = await createPlatform(portsOf(cluster))
const stop = async (code: number) => {
  await platform.down()
  await cluster.stop()
  if (flags.outages) unmountDisks()
  process.exit(code)
}
process.once('SIGINT', () => void stop(1))

try {
  await platform.up()
  if (kafkaBrokers > 1) await inSync(platform)
  const all = cells()
  const chosen = all.filter(({ name }) => !only || only.some((beginning) => name.startsWith(beginning)))
  if (chosen.length === 0) {
    say(`--only ${flags.only} chooses none of ${all.map(({ name }) => name).join(', ')}`)
    await stop(1)
  }
  const rows = await runCells(platform, cluster, chosen, load, say)
  report(rows, `${load.devices} devices, ${load.ratePerSecond} readings a second, QoS 1.`)
  const bad = rows.filter(
    (row) => row.missing + row.out_of_order + row.foreign + row.missing_in_history + row.wrong_last_state,
  )
  say(bad.length === 0 ? 'nothing missing, nothing out of order, nothing wrong' : `${bad.length} rows are not clean`)
  await stop(bad.length === 0 ? 0 : 1)
} catch (error) {
  say(String((error as Error).stack))
  await stop(1)
}

/** Has servers and services of its own, and ends the process. */
async function hostile(): Promise<never> {
  const sessions = positive('sessions')
  const peers = PEERS.filter((name) => !only || only.includes(name))
  const { rows, bad } = await runHostile({ peers, seed, sessions, start: startCluster, say })
  report(rows, `${sessions} sessions with each peer.`)
  say(bad === 0 ? 'nothing missing, nothing out of order, nothing wrong' : `${bad} rounds are not clean`)
  return process.exit(bad === 0 ? 0 : 1)
}

function cells(): Cell[] {
  if (minutes > 0) return [{ name: `random-${seed}`, harm: () => random(minutes) }]
  if (flags.outages) return outages(platform, cluster)
  if (flags.writes) return writeCells(platform)
  return kafkaBrokers === 1 ? matrix() : brokerCells(platform, cluster)
}

function matrix(): Cell[] {
  return KINDS.flatMap((kind) =>
    COMPONENTS.map((component) => ({
      name: `${component}-${kind}`,
      harm: () => strike(platform, cluster, { component, kind }, { frozenMs: FROZEN_MS }),
    })),
  )
}

/** Faults drawn by the seed, one every 10 to 20 s, now and then two at once, under one continuous load. */
async function random(duration: number): Promise<Span[]> {
  const { next: draw, pick } = createRandom(seed)
  const components = componentsOf(cluster)
  const startedMs = performance.now()
  const forgiven: Span[] = []
  while (performance.now() - startedMs < duration * 60_000) {
    const first: Fault = { component: pick(components), kind: pick(KINDS) }
    const others = components.filter((component) => component !== first.component)
    const second: Fault = { component: pick(others), kind: pick(KINDS) }
    const faults = draw() < TWO_AT_ONCE ? [first, second] : [first]
    const frozenMs = 5000 + draw() * 15_000
    const gapMs = RANDOM_GAP_MS[0] + draw() * (RANDOM_GAP_MS[1] - RANDOM_GAP_MS[0])
    const minute = ((performance.now() - startedMs) / 60_000).toFixed(1)
    say(`${minute} min: ${faults.map(({ component, kind }) => `${component} ${kind}`).join(' and ')}`)
    const spans = await Promise.all(faults.map((fault) => strike(platform, cluster, fault, { frozenMs })))
    forgiven.push(...spans.flat())
    await pause(gapMs)
  }
  return forgiven
}

function brokers(): number {
  try {
    return brokerCount(process.env)
  } catch (error) {
    say((error as Error).message)
    return process.exit(1)
  }
}

function report(rows: Record<string, string | number>[], heading: string) {
  const environment = kafkaBrokers > 1 ? `KAFKA_BROKER_COUNT=${kafkaBrokers} ` : ''
  const command = `${environment}npm run chaos${process.argv.length > 2 ? ` -- ${process.argv.slice(2).join(' ')}` : ''}`
  const modes = { random: minutes > 0, outages: flags.outages, hostile: flags.hostile, writes: flags.writes }
  const kind = Object.entries(modes)
    .flatMap(([name, isChosen]) => (isChosen ? `-${name}` : []))
    .join('')
  const name = `chaos${kafkaBrokers > 1 ? '-cluster' : ''}${kind}`
  say(`\n${writeReport(rows, { dir: flags.out, name, heading, command })}`)
}
