import { expect, test } from 'vitest'
import { outcomeOf, problemOf } from './command'
import { feedQuery, hashOf, listQuery, routeOf } from './queries'
import { columnsOf } from './table'
import { stateOf } from './wire'

test('what is asked for', () => {
  expect(listQuery({ text: '', mode: 'all' })).toBe('')
  expect(listQuery({ text: 'a&b', mode: 'silent' })).toBe('contains=a%26b&silent_for=10m')
  expect(feedQuery(['a', 'ü/1'], false, true)).toBe('presence=true&flow=true&every=500ms&device=a&device=%C3%BC%2F1')
  expect(feedQuery([], true, false)).toBe('presence=true&device=-')
})

test('a request names as many devices as its head can hold', () => {
  expect(
    feedQuery(
      Array.from({ length: 500 }, () => 'ü'.repeat(128)),
      false,
      true,
    ).length,
  ).toBeLessThan(12_000)
  expect(
    feedQuery(
      Array.from({ length: 500 }, (_, index) => `${index}`),
      false,
      true,
    ).match(/device=/g),
  ).toHaveLength(100)
})

test('a place of the page is a link', () => {
  const places = [
    { view: 'devices', device: null },
    { view: 'devices', device: 'a b/ü#?%' },
    { view: 'letters', device: null },
  ] as const
  for (const place of places) expect(routeOf(hashOf(place))).toEqual(place)
  for (const hash of ['', '#', '#/nothing', '#/devices/%']) expect(routeOf(hash)).toEqual(places[0])
})

test('the columns are the fields that most devices have', () => {
  const states = ['{"a":1,"t":1,"h":2,"b":3}', '{"t":1,"h":2,"b":{"c":1}}', '{"t":1,"h":"x"}', '[1]', '"text"'].map(
    (payload) => stateOf(`{"payload":${payload}}`),
  )
  expect(columnsOf(states)).toEqual(['a', 't', 'h'])
  expect(columnsOf([])).toEqual([])
})

test('what keeps a text from being a command', () => {
  expect(problemOf('{"command":"stop"}')).toBe('')
  for (const text of ['', '{', '[]', 'null', '"stop"', '{}', '{"command":""}', '{"command":1}'])
    expect(problemOf(text), text).not.toBe('')
})

test('what an answer to a command says', () => {
  expect(outcomeOf(200, '{"status":"succeeded","result":{"n":1.10}}', 12.3)).toMatchObject({
    kind: 'good',
    words: 'Succeeded in 12 ms',
    detail: '{"n":1.10}',
  })
  expect(outcomeOf(200, '{"status":"failed","result":null}', 12).kind).toBe('bad')
  expect(outcomeOf(202, '{"status":"sent","no_subscribers":true}', 5).words).toContain('nobody listens')
  expect(outcomeOf(202, '{"status":"sent"}', 5000).words).toBe('Sent, no reply within 5s')
})
