// What was measured, as tables on the terminal, JSON and charts.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { root } from '@iot/stack/prepare'
import type { Run } from './throughput.js'

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0

/** Medians over the runs of one contender. */
export type Row = {
  contender: string
  runs: number
  perSecond: number
  cpuSPerMillion: Record<string, number>
  peakMb: Record<string, number>
}

export function summarize(runs: Run[]): Row[] {
  return [...new Set(runs.map(({ contender }) => contender))].map((contender) => {
    const own = runs.filter((run) => run.contender === contender)
    const each = (pick: (run: Run) => Record<string, number>) =>
      Object.fromEntries(
        Object.keys(pick(own[0] as Run)).map((name) => [
          name,
          Math.round(median(own.map((run) => pick(run)[name] ?? 0))),
        ]),
      )
    return {
      contender,
      runs: own.length,
      perSecond: Math.round(median(own.map(({ perSecond }) => perSecond))),
      cpuSPerMillion: each((run) => run.cpuSPerMillion),
      peakMb: each((run) => run.peakMb),
    }
  })
}

/** One table: the medians, and the ratio of the platform to each. */
export function show(part: string, runs: Run[]): void {
  const rows = summarize(runs)
  const own = rows.find(({ contender }) => contender === 'platform')
  const table = rows.map((row) => {
    const { contender, perSecond, cpuSPerMillion, peakMb } = row
    const servers = Object.entries(cpuSPerMillion).filter(([name]) => name !== contender)
    const used = cpuSPerMillion[contender] ?? 0
    return {
      [part]: contender,
      'msg/s': perSecond,
      'platform is': own ? `${(own.perSecond / perSecond).toFixed(2)} x` : '',
      'CPU s per million': used,
      'platform per CPU s': own ? `${(used / (own.cpuSPerMillion.platform ?? 0)).toFixed(2)} x` : '',
      'peak MB': peakMb[contender] ?? 0,
      servers: servers.map(([name, cpuS]) => `${name} ${cpuS}`).join(', '),
    }
  })
  console.table(table)
}

const results = join(root, 'bench', 'results')

/** Writes a part's results beside those of the other parts. */
export function save(part: string, runs: Run[], keep: boolean): void {
  const dir = keep ? results : join(root, '.local', 'bench')
  mkdirSync(dir, { recursive: true })
  const file = join(dir, 'results.json')
  const all = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {}
  const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version }
  all[part] = { at: new Date().toISOString().slice(0, 10), machine, rows: summarize(runs), runs }
  writeFileSync(file, `${JSON.stringify(all, null, 1)}\n`)
}
