import { expect, test } from 'vitest'
import { metricIn } from './flow.js'

test('a metric is found by its whole name, over all its labels', () => {
  const text = '# HELP a_total b\na_total 3\na_total_more 7\nb{partition="0"} 1.5\nb{partition="1",x="}"} 2\nc NaN\n'
  expect(metricIn(text, 'a_total')).toBe(3)
  expect(metricIn(text, 'b')).toBe(3.5)
  expect(metricIn(text, 'd')).toBe(null)
  expect(metricIn(null, 'a_total')).toBe(null)
})
