import { expect, test } from 'vitest'
import { lagsOf, startOf } from './topic-state.js'

const bounds = { low: 100, high: 200 }

test('where reading begins', () => {
  expect(startOf(null, 'a', bounds)).toEqual({ offset: 100, skipped: 0, reason: 'first' })
  expect(startOf({ offset: 150, topicId: 'a' }, 'a', bounds)).toEqual({ offset: 150, skipped: 0, reason: 'resumed' })
  expect(startOf({ offset: 200, topicId: 'a' }, 'a', bounds)).toEqual({ offset: 200, skipped: 0, reason: 'resumed' })
})

test('what retention removed is counted', () => {
  expect(startOf({ offset: 40, topicId: 'a' }, 'a', bounds)).toEqual({ offset: 100, skipped: 60, reason: 'removed' })
  expect(startOf({ offset: 0, topicId: 'a' }, 'a', { low: 7, high: 7 })).toEqual({
    offset: 7,
    skipped: 7,
    reason: 'removed',
  })
})

test('an offset of an earlier topic of the same name means nothing, however it compares', () => {
  for (const offset of [40, 150, 999])
    expect(startOf({ offset, topicId: 'a' }, 'b', bounds)).toEqual({ offset: 100, skipped: 0, reason: 'recreated' })
})

test('where no id tells, an offset beyond the end is of an earlier topic', () => {
  expect(startOf({ offset: 201, topicId: null }, null, bounds)).toMatchObject({ offset: 100, reason: 'shorter' })
  expect(startOf({ offset: 201, topicId: null }, 'b', bounds)).toMatchObject({ offset: 100, reason: 'shorter' })
  expect(startOf({ offset: 150, topicId: null }, 'b', bounds)).toMatchObject({ offset: 150, reason: 'resumed' })
})

test('lag counts every partition, read by anybody or not', () => {
  const all = new Map([
    [0, bounds],
    [1, bounds],
    [2, { low: 0, high: 0 }],
  ])
  const committed = new Map([[0, { offset: 190, topicId: 'a' }]])
  expect([...lagsOf(all, committed, 'a')]).toEqual([
    [0, 10],
    [1, 100],
    [2, 0],
  ])
  expect([...lagsOf(all, committed, 'b')]).toEqual([
    [0, 100],
    [1, 100],
    [2, 0],
  ])
})
