import type { Topic } from '@iot/shared/kafka/topic-state'
import { expect, test } from 'vitest'
import { placeOf } from './place.js'

const topic = (partitions: number, id: string | null = 'abcdefghijklmnopqrstuw=='): Topic => ({
  id,
  partitions: Array.from({ length: partitions }, (_, partition) => ({ partition, leader: 1, replicas: 1, inSync: 1 })),
})
const located = (bounds: [number, number][], partitions = bounds.length, id?: string | null) => ({
  topic: topic(partitions, id),
  bounds: new Map(bounds.map(([low, high], partition) => [partition, { low, high }])),
  generation: 3,
})
const vector = (next: number[], tag = 'abcdef') => ({ topic: tag, next: new Map(next.entries()) })

test('a vector within what is kept stays as it is', () => {
  const place = placeOf(
    vector([10, 20]),
    located([
      [0, 10],
      [5, 30],
    ]),
  )
  expect(place).toEqual({ topic: 'abcdef', next: new Map([10, 20].entries()), gaps: [], generation: 3 })
})

test('what retention removed is counted exactly, by partition', () => {
  const { next, gaps } = placeOf(
    vector([10, 20, 7]),
    located([
      [100, 200],
      [20, 30],
      [9, 9],
    ]),
  )
  expect([...next.values()]).toEqual([100, 20, 9])
  expect(gaps).toEqual([
    { reason: 'retention', missed: 92, partitions: { 0: { from: 10, to: 99 }, 2: { from: 7, to: 8 } } },
  ])
})

test('partitions that came since begin at their beginning', () => {
  expect(
    placeOf(
      vector([10]),
      located([
        [0, 10],
        [0, 50],
      ]),
    ),
  ).toMatchObject({ next: new Map([10, 0].entries()), gaps: [] })
})

test('another topic of the same name is read from its beginning, whatever the numbers say', () => {
  const changed = [{ reason: 'topic_changed', missed: null }]
  const bounds: [number, number][] = [
    [0, 100],
    [0, 100],
  ]
  const start = new Map([0, 0].entries())
  expect(placeOf(vector([10, 20], 'zzzzzz'), located(bounds))).toMatchObject({ next: start, gaps: changed })
  expect(placeOf(vector([10, 20, 30]), located(bounds))).toMatchObject({ next: start, gaps: changed })
  // without a word of which topic it is, only numbers beyond the end tell
  expect(placeOf(vector([10, 101], ''), located(bounds, 2, null)).gaps).toEqual(changed)
  expect(placeOf(vector([10, 100], ''), located(bounds, 2, null)).gaps).toEqual([])
})

test('of a partition that nobody leads nothing is known: it stays where it was', () => {
  expect(placeOf(vector([10, 20]), located([[0, 10]], 2))).toMatchObject({
    next: new Map([10, 20].entries()),
    gaps: [],
  })
})

test('of a topic of many partitions a place has those of the vector alone', () => {
  const bounds = Array.from({ length: 501 }, (): [number, number] => [0, 9])
  const place = placeOf({ topic: 'abcdef', next: new Map([[77, 5]]) }, located(bounds))
  expect([...place.next]).toEqual([[77, 5]])
})
