import { expect, test } from 'vitest'
import { afterValue, rangeOf, type Series, seriesOf } from './series'

const ANSWER =
  '{"device_id":"d","every":10,"time":[100,110,120],"fields":{"serial":{"min":[1,null,12345678901234567890],' +
  '"max":[1.10,null,12345678901234567891],"avg":[1.05,null,1e19],"last":[1.10,null,12345678901234567891],"count":[2,0,2]}}}'
const { fields, every } = seriesOf(ANSWER, ['serial', 'other'])
const series = fields.get('serial') as Series

test('an answer keeps the digits of its device', () => {
  expect(every).toBe(10)
  expect([...fields.keys()]).toEqual(['serial'])
  expect(series).toMatchObject({
    time: [100, 110, 120],
    min: ['1', null, '12345678901234567890'],
    last: ['1.10', null, '12345678901234567891'],
    count: [2, 0, 2],
  })
  expect(rangeOf(series)).toEqual({ min: '1', max: '12345678901234567891', last: '12345678901234567891' })
  expect(rangeOf({ ...series, min: [null], max: [null], last: [null] })).toBeNull()
})

test('a reading changes its own bucket', () => {
  const next = afterValue(series, 10, 3, 129.5, '0.50')
  expect(next.time).toEqual([100, 110, 120])
  expect([next.min[2], next.max[2], next.last[2], next.count[2]]).toEqual(['0.50', '12345678901234567891', '0.50', 3])
  expect(next.avg[2]).toBeCloseTo(2e19 / 3, -10)
  expect(series.last[2]).toBe('12345678901234567891') // the one before is as it was
})

test('a reading that is later moves the window, over buckets that stay empty', () => {
  const next = afterValue(series, 10, 3, 142, '7')
  expect(next).toMatchObject({ time: [120, 130, 140], last: ['12345678901234567891', null, '7'], count: [2, 0, 1] })
  const far = afterValue(series, 10, 3, 1_000_005, '8')
  expect(far).toMatchObject({ time: [999_980, 999_990, 1_000_000], last: [null, null, '8'], avg: [null, null, 8] })
})

test('a reading of a bucket that is past is left to the server', () => {
  expect(afterValue(series, 10, 3, 115, '7')).toBe(series)
})

test('the first reading of all begins the window', () => {
  const none: Series = { time: [], min: [], max: [], last: [], avg: [], count: [] }
  expect(afterValue(none, 10, 3, 25, '7')).toEqual({
    time: [20],
    min: ['7'],
    max: ['7'],
    last: ['7'],
    avg: [7],
    count: [1],
  })
})
