// Numbers over time, in buckets that begin at multiples of their length. Texts go in and come out: the least, the greatest
// and the last number keep the digits that the device wrote, only averages are ours. Pure.
import { isNumberText } from '@iot/shared/json-text'

export const MAX_BUCKETS = 2000
const GOOD_BUCKETS = 600
const MINUTE = 60
const HOUR = 3600
const STEPS_S = [
  ...[1, 2, 5, 10, 15, 30],
  ...[1, 2, 5, 10, 15, 30].map((minutes) => minutes * MINUTE),
  ...[1, 2, 3, 6, 12, 24, 48, 168, 720, 8760].map((hours) => hours * HOUR),
]

/** `from` belongs to it, `to` does not; Unix seconds. */
export type Span = { from: number; to: number }

// in whole microseconds, in which sums and quotients of times are exact
const us = (seconds: number) => Math.round(seconds * 1_000_000)

/** How many buckets of so many seconds a span touches. */
export function bucketsOf({ from, to }: Span, everyS: number): number {
  const [start, end, every] = [us(from), us(to), us(everyS)]
  return end <= start ? 0 : Math.floor((end - 1) / every) - Math.floor(start / every) + 1
}

/** The shortest round length of which a span has at most so many buckets. */
export const stepFor = (span: Span, most: number): number =>
  STEPS_S.find((step) => bucketsOf(span, step) <= most) ?? Math.ceil((span.to - span.from) / most) + 1

export const goodStep = (span: Span): number => stepFor(span, GOOD_BUCKETS)

type Column = { min: string[]; max: string[]; last: string[]; count: number[]; sums: number[] }

export type Series = {
  /** Takes in one reading, not older than those before it; `texts` are the fields' JSON texts, in their order. */
  add(seconds: number, texts: readonly (string | undefined)[]): void
  /** `"time":[…],"fields":{…}` */
  text(): string
}

/** @param everyS the length of a bucket in seconds */
export function createSeries(fields: readonly string[], span: Span, everyS: number): Series {
  const every = us(everyS)
  const first = Math.floor(us(span.from) / every)
  const size = bucketsOf(span, everyS)
  const empty = () => Array.from({ length: size }, () => 'null')
  const zero = () => Array.from({ length: size }, () => 0)
  const columns = fields.map((): Column => ({ min: empty(), max: empty(), last: empty(), count: zero(), sums: zero() }))

  const put = ({ min, max, last, count, sums }: Column, bucket: number, text: string) => {
    const value = Number(text)
    const isFirst = count[bucket] === 0
    if (isFirst || value < Number(min[bucket])) min[bucket] = text
    if (isFirst || value > Number(max[bucket])) max[bucket] = text
    last[bucket] = text
    count[bucket] = (count[bucket] as number) + 1
    sums[bucket] = (sums[bucket] as number) + value
  }

  return {
    add(seconds, texts) {
      const bucket = Math.floor(us(seconds) / every) - first
      if (bucket < 0 || bucket >= size) return
      for (const [index, column] of columns.entries()) {
        const text = texts[index]
        if (text !== undefined && isNumberText(text)) put(column, bucket, text)
      }
    },
    text() {
      const time = Array.from({ length: size }, (_, bucket) => ((first + bucket) * every) / 1_000_000)
      const parts = columns.map(({ min, max, last, count, sums }, index) => {
        const avg = sums.map((sum, bucket) => (count[bucket] === 0 ? null : sum / (count[bucket] as number)))
        const lists = `"min":[${min}],"max":[${max}],"avg":${JSON.stringify(avg)},"last":[${last}],"count":[${count}]`
        return `${JSON.stringify(fields[index])}:{${lists}}`
      })
      return `"time":[${time}],"fields":{${parts.join(',')}}`
    },
  }
}
