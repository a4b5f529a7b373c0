// npm run bench: the platform, its peers and its limits, measured side by side on real local servers.
//   npm run bench [-- --only ingest,store-1k,store-100k] [--quick] [--runs 5]
//   npm run soak [-- --minutes 30 --rate 5000 --retention 300s]
import { parseArgs } from 'node:util'
import { api } from './api.js'
import * as contenders from './contenders.js'
import { highestRate, idle, type Latency, latency } from './latency.js'
import type { Backlog } from './load.js'
import { memory } from './memory.js'
import { chart, save, showRows, showRuns, summarize } from './report.js'
import { createRig, type Rig } from './rig.js'
import { soak } from './soak.js'
import { growth, ingest, type Run, store, withBacklog } from './throughput.js'

const say = (line: string) => void process.stderr.write(`${line}\n`)
const { values: flags } = parseArgs({
  options: {
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
    runs: { type: 'string' },
    minutes: { type: 'string', default: '10' },
    rate: { type: 'string', default: '2000' },
    retention: { type: 'string', default: '60s' },
  },
})
const runs = Number(flags.runs ?? (flags.quick ? 1 : 5))
const share = flags.quick ? 0.2 : 1
const backlog = (messages: number, devices: number): Backlog => ({
  messages: messages * share,
  devices,
  payloadBytes: 75,
})

/** Runs everybody in turn, as often as asked for: what disturbs the machine disturbs all. */
async function repeat(name: string, once: () => Promise<Run[]>): Promise<Run[]> {
  const all: Run[] = []
  for (let run = 1; run <= runs; run++) {
    for (const one of await once()) {
      say(`${name} ${run}/${runs}: ${one.contender} ${Math.round(one.perSecond)} msg/s`)
      all.push(one)
    }
  }
  return all
}

const storing = (name: string, devices: number) => (rig: Rig) =>
  withBacklog(rig, backlog(500_000, devices), (topic) =>
    repeat(name, () => store(rig, topic, backlog(500_000, devices))),
  )

const soaking = {
  seconds: Number(flags.minutes) * 60,
  rate: Number(flags.rate),
  retentionSeconds: Number(flags.retention.replace(/s$/, '')),
}
const seconds = flags.quick ? 10 : 60
/** A part measures, shows its table and answers what is to be kept. */
const throughput = (name: string, measureAll: (rig: Rig) => Promise<Run[]>) => async (rig: Rig) => {
  const all = await measureAll(rig)
  showRuns(name, all)
  const rows = summarize(all)
  draw(name, rows, ({ contender }) => contender, {
    'messages a second': ({ perSecond }) => perSecond,
    'CPU seconds per million': ({ contender, cpuSPerMillion }) => cpuSPerMillion[contender],
  })
  return { medians: rows, runs: all }
}
const table =
  <Row extends object>(measureAll: (rig: Rig) => Promise<Row[]>, drawRows: (rows: Row[]) => void = () => {}) =>
  async (rig: Rig) => {
    const rows = await measureAll(rig)
    showRows(rows)
    drawRows(rows)
    return { rows }
  }

/** A chart of the rows, unless it is a quick run. */
function draw<Row>(
  part: string,
  rows: Row[],
  nameOf: (row: Row) => string,
  columns: Record<string, (row: Row) => number | undefined>,
) {
  if (flags.quick) return
  const values = Object.entries(columns).map(([title, pick]) => [title, rows.map(pick)])
  chart(part, rows.map(nameOf), Object.fromEntries(values))
}
const drawLatency = (part: string) => (rows: Latency[]) =>
  draw(part, rows, ({ contender, rate }) => `${contender}, ${rate} msg/s`, {
    'p50, ms': ({ p50 }) => p50,
    'p99, ms': ({ p99 }) => p99,
  })

const PARTS: Record<string, (rig: Rig) => Promise<object>> = {
  ingest: throughput('ingest', (rig) => repeat('ingest', () => ingest(rig, backlog(300_000, 1000)))),
  'store-1k': throughput('store-1k', storing('store-1k', 1000)),
  'store-100k': throughput('store-100k', storing('store-100k', 100_000)),
  latency: table((rig) => latency(rig, [1000, 5000, 10_000], seconds, say), drawLatency('latency')),
  highest: table((rig) => highestRate(rig, 14_000, 4000, seconds, say), drawLatency('highest')),
  api: table(async (rig) => [await api(rig, backlog(500_000, 1000), runs)]),
  growth: table(
    (rig) => growth(rig, share),
    (rows) =>
      draw('growth', rows, ({ devices, payloadBytes }) => `${devices} devices, ${payloadBytes} B`, {
        'ingest, messages a second': (row) => row['ingest msg/s'],
        'store, messages a second': (row) => row['store msg/s'],
      }),
  ),
  idle: table((rig) => idle(rig, seconds)),
  memory: async (rig) => {
    const found = await memory(rig, say)
    showRows(found.rows)
    showRows(found.devices)
    return found
  },
  soak: async (rig) => {
    const found = await soak(rig, soaking, say)
    showRows(found.rows)
    if (found.latency) showRows([found.latency])
    return { ...soaking, ...found }
  },
}

const wanted = flags.only?.split(',') ?? Object.keys(PARTS)
const unknown = wanted.find((name) => !PARTS[name])
const areNumbers = Object.values(soaking).every((value) => value > 0)
if (!areNumbers) say('--minutes, --rate and --retention must be numbers, the last one of seconds')
if (!areNumbers || unknown || !Number.isInteger(runs) || runs < 1) {
  say(
    unknown ? `--only takes ${Object.keys(PARTS).join(', ')}, not ${unknown}` : '--runs must be a whole number above 0',
  )
  process.exit(1)
}
for (const peer of contenders.absentPeers())
  say(`not installed, not measured: ${peer} (bench/peers/install.sh installs it)`)

const rig = await createRig()
const stop = async (code: number) => {
  await rig.stop()
  process.exit(code)
}
process.once('SIGINT', () => void stop(1))
try {
  for (const name of wanted) {
    const part = PARTS[name]
    if (!part) continue
    say(`${name} ...`)
    save(name, await part(rig), !flags.quick)
  }
  await stop(0)
} catch (error) {
  say(String((error as Error).stack))
  await stop(1)
}
