// A field over time, in buckets of equal length, and what a further reading makes of it. The texts are the device's own
// digits; their doubles only say where a point is. Pure.
import { createFieldReader, elementTexts, memberText } from '@iot/shared/json-text'

type Text = string | null

/** Columns of equal length; what an empty bucket would hold is null. */
export type Series = { time: number[]; min: Text[]; max: Text[]; last: Text[]; avg: (number | null)[]; count: number[] }
export type SeriesAnswer = { every: number; fields: Map<string, Series> }

const columnsOf = createFieldReader(['min', 'max', 'last', 'avg', 'count'])
const textsOf = (array = '[]'): Text[] => elementTexts(array).map((text) => (text === 'null' ? null : text))
const numberOf = (text: Text): number | null => (text === null ? null : Number(text))

/** Reads the answer of `GET /devices/{id}/series`. */
export function seriesOf(text: string, names: readonly string[]): SeriesAnswer {
  const time = textsOf(memberText(text, 'time')).map(Number)
  const all = memberText(text, 'fields') ?? '{}'
  const fields = new Map<string, Series>()
  for (const name of names) {
    const columns = memberText(all, name)
    if (!columns) continue
    const [min, max, last, avg, count] = columnsOf(columns).map((column) => textsOf(column))
    if (!min || !max || !last || !avg || !count) continue
    fields.set(name, { time, min, max, last, avg: avg.map(numberOf), count: count.map(Number) })
  }
  return { every: Number(memberText(text, 'every') ?? 1), fields }
}

/** The series after a reading: its bucket changes, or buckets follow and as many go; `length` is what it holds at most. */
export function afterValue(series: Series, every: number, length: number, timestamp: number, value: string): Series {
  const at = Math.floor(timestamp / every) * every
  const lastTime = series.time.at(-1)
  if (lastTime !== undefined && at < lastTime) return series // late: the next answer of the server has it
  const next = extended(series, every, length, at)
  const index = next.time.length - 1
  const [min, max, avg, count] = [next.min[index], next.max[index], next.avg[index] ?? 0, next.count[index] ?? 0]
  const number = Number(value)
  const put = <T>(column: T[], item: T): T[] => [...column.slice(0, index), item]
  return {
    time: next.time,
    min: put(next.min, min == null || number < Number(min) ? value : min),
    max: put(next.max, max == null || number > Number(max) ? value : max),
    last: put(next.last, value),
    avg: put(next.avg, (avg * count + number) / (count + 1)),
    count: put(next.count, count + 1),
  }
}

function extended(series: Series, every: number, length: number, at: number): Series {
  const lastTime = series.time.at(-1)
  if (lastTime === at) return series
  const first = Math.max(lastTime === undefined ? at : lastTime + every, at - (length - 1) * every)
  const added = Array.from({ length: Math.round((at - first) / every) + 1 }, (_, index) => first + index * every)
  const grow = <T>(column: T[], empty: T): T[] => [...column, ...added.map(() => empty)].slice(-length)
  return {
    time: [...series.time, ...added].slice(-length),
    min: grow(series.min, null),
    max: grow(series.max, null),
    last: grow(series.last, null),
    avg: grow(series.avg, null),
    count: grow(series.count, 0),
  }
}

/** The smallest and the largest value with their own digits, and the last one; null where there is none. */
export function rangeOf({ min, max, last }: Series): { min: string; max: string; last: string } | null {
  const by = (texts: Text[], isBetter: (a: number, b: number) => boolean) =>
    texts.reduce(
      (best, text) => (best === null || (text !== null && isBetter(Number(text), Number(best))) ? text : best),
      null,
    )
  const [least, most] = [by(min, (a, b) => a < b), by(max, (a, b) => a > b)]
  const newest = last.findLast((text) => text !== null)
  return least != null && most != null && newest != null ? { min: least, max: most, last: newest } : null
}
