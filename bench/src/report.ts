// What was measured, as tables on the terminal, JSON and charts.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { root } from '@iot/stack/prepare'
import * as echarts from 'echarts'
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
          Math.round(10 * median(own.map((run) => pick(run)[name] ?? 0))) / 10,
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
export function showRuns(part: string, runs: Run[]): void {
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

/** Any rows as a table, numbers rounded to one digit. */
export function showRows(rows: object[]): void {
  const round = (value: unknown): unknown =>
    typeof value === 'number'
      ? Math.round(value * 10) / 10
      : typeof value === 'object' && value !== null
        ? Object.entries(value)
            .map(([name, of]) => `${name} ${Array.isArray(of) ? of.join(' ') : Number(of).toFixed(2)}`)
            .join(', ')
        : value
  console.table(rows.map((row) => Object.fromEntries(Object.entries(row).map(([name, of]) => [name, round(of)]))))
}

const results = join(root, 'bench', 'results')

const LEFT = 190
const COLUMN = 290

/** Draws bars as `bench/results/{part}.svg`: a line for each name, a column for each title, values with their units in the title. */
export function chart(part: string, names: string[], columns: Record<string, (number | undefined)[]>): void {
  mkdirSync(results, { recursive: true })
  const titles = Object.keys(columns)
  const width = LEFT + COLUMN * titles.length
  const drawn = echarts.init(null, null, { renderer: 'svg', ssr: true, width, height: 70 + 40 * names.length })
  drawn.setOption({
    animation: false,
    title: titles.map((title, at) => ({ text: title, left: LEFT + COLUMN * at, textStyle: { fontSize: 14 } })),
    grid: titles.map((_, at) => ({ left: LEFT + COLUMN * at, width: COLUMN - 90, top: 40, bottom: 20 })),
    xAxis: titles.map((_, gridIndex) => ({ type: 'value', gridIndex, axisLabel: { show: false } })),
    yAxis: titles.map((_, gridIndex) => ({
      type: 'category',
      gridIndex,
      data: names.toReversed(),
      axisLabel: { show: gridIndex === 0 },
    })),
    series: Object.values(columns).map((values, axis) => ({
      type: 'bar',
      xAxisIndex: axis,
      yAxisIndex: axis,
      label: { show: true, position: 'right' },
      data: values.map((value) => Math.round((value ?? 0) * 10) / 10).toReversed(),
    })),
  })
  writeFileSync(join(results, `${part}.svg`), `${drawn.renderToSVGString()}\n`)
  drawn.dispose()
}

/** Writes what a part measured beside the other parts. @param keep into `bench/results/`, else only `.local/bench/` */
export function save(part: string, measured: object, keep: boolean): void {
  const dir = keep ? results : join(root, '.local', 'bench')
  mkdirSync(dir, { recursive: true })
  const file = join(dir, 'results.json')
  const all = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {}
  const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version }
  all[part] = { at: new Date().toISOString().slice(0, 10), machine, ...measured }
  const rounded = (_key: string, value: unknown) => (typeof value === 'number' ? Number(value.toPrecision(6)) : value)
  writeFileSync(file, `${JSON.stringify(all, rounded, 1)}\n`)
}
