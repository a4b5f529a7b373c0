import { expect, test } from 'vitest'
import { brokerIn, metricIn } from './flow.js'

test('a metric is found by its whole name, over all its labels', () => {
  const text = '# HELP a_total b\na_total 3\na_total_more 7\nb{partition="0"} 1.5\nb{partition="1",x="}"} 2\nc NaN\n'
  expect(metricIn(text, 'a_total')).toBe(3)
  expect(metricIn(text, 'b')).toBe(3.5)
  expect(metricIn(text, 'd')).toBe(null)
  expect(metricIn(null, 'a_total')).toBe(null)
})

test('where devices publish is found whatever the labels hold, and in whatever order', () => {
  const [url, prefix] = ['mqtt://broker:1883', 'a,topic_prefix=\\"}{\\\\']
  const wanted = { url, topic_prefix: 'a,topic_prefix="}{\\' }
  for (const labels of [`url="${url}",topic_prefix="${prefix}"`, `topic_prefix="${prefix}",url="${url}"`])
    expect(brokerIn(`x 1\niot_mqtt_info{${labels}} 1\ny 2\n`)).toEqual(wanted)
  expect(brokerIn('iot_mqtt_info{url="x"} 1')).toBe(null)
  expect(brokerIn(null)).toBe(null)
})
