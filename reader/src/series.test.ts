import fc from 'fast-check'
import { expect, test } from 'vitest'
import { bucketsOf, createSeries, goodStep, MAX_BUCKETS, stepFor } from './series.js'

test('the least, the greatest and the last keep their digits; empty buckets are null', () => {
  const series = createSeries(['n', 'other'], { from: 103, to: 131 }, 10)
  series.add(103, ['12345678901234567890', undefined])
  series.add(104.5, ['1.10', '"5"'])
  series.add(109.999999, ['1E+3', 'null'])
  series.add(110, ['-0.0', '[1]'])
  series.add(99, ['7', '7'])
  series.add(140, ['7', '7'])
  expect(series.text()).toBe(
    '"time":[100,110,120,130],"fields":{"n":{"min":[1.10,-0.0,null,null],"max":[12345678901234567890,-0.0,null,null],' +
      '"avg":[4115226300411522600,0,null,null],"last":[1E+3,-0.0,null,null],"count":[3,1,0,0]},' +
      '"other":{"min":[null,null,null,null],"max":[null,null,null,null],"avg":[null,null,null,null],' +
      '"last":[null,null,null,null],"count":[0,0,0,0]}}',
  )
})

test('buckets are what a plain look at each of them finds', () => {
  const readings = fc.array(fc.record({ at: fc.nat(100_000), value: fc.integer({ min: -1000, max: 1000 }) }), {
    maxLength: 50,
  })
  fc.assert(
    fc.property(
      readings,
      fc.nat(50_000),
      fc.integer({ min: 1, max: 50_000 }),
      fc.integer({ min: 500, max: 9000 }),
      (all, from, length, everyMs) => {
        const span = { from: from / 1000, to: (from + length) / 1000 }
        const sorted = all.sort((a, b) => a.at - b.at)
        const series = createSeries(['v'], span, everyMs / 1000)
        for (const { at, value } of sorted) series.add(at / 1000, [String(value)])
        const { time, fields } = JSON.parse(`{${series.text()}}`)
        expect(time).toHaveLength(bucketsOf(span, everyMs / 1000))
        expect(time[0]).toBeLessThanOrEqual(span.from)
        expect(time.at(-1) + everyMs / 1000).toBeGreaterThanOrEqual(span.to)
        for (const [index, start] of (time as number[]).entries()) {
          const startMs = Math.round(start * 1000)
          expect(startMs % everyMs).toBe(0)
          const inside = sorted.filter(({ at }) => at >= startMs && at < startMs + everyMs).map(({ value }) => value)
          const one = { ...fields.v, min: fields.v.min[index], max: fields.v.max[index], avg: fields.v.avg[index] }
          expect(fields.v.count[index]).toBe(inside.length)
          expect(fields.v.last[index]).toBe(inside.at(-1) ?? null)
          expect(one.min).toBe(inside.length > 0 ? Math.min(...inside) : null)
          expect(one.max).toBe(inside.length > 0 ? Math.max(...inside) : null)
          if (inside.length > 0) expect(one.avg).toBeCloseTo(inside.reduce((sum, value) => sum + value) / inside.length)
        }
      },
    ),
  )
})

test('a step that is named fits, and is the shortest round one', () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 2e9, noNaN: true }),
      fc.double({ min: 0, max: 2e9, noNaN: true }),
      (from, length) => {
        const span = { from, to: from + length }
        expect(bucketsOf(span, stepFor(span, MAX_BUCKETS))).toBeLessThanOrEqual(MAX_BUCKETS)
        expect(bucketsOf(span, goodStep(span))).toBeLessThanOrEqual(600)
      },
    ),
  )
  expect(stepFor({ from: 0, to: 2000 }, MAX_BUCKETS)).toBe(1)
  expect(stepFor({ from: 0.5, to: 2000.5 }, MAX_BUCKETS)).toBe(2)
  expect(goodStep({ from: 1, to: 1 + 18_000 })).toBe(60)
})
