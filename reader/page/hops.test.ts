import { expect, test } from 'vitest'
import { afterFlow, type Flow, figuresOf, firstReading, hopsOf, noFlow } from './hops'

const bridge = {
  url: 'http://b',
  ready: true,
  not_ready: {},
  received_per_second: 1000,
  published_per_second: 999,
  in_flight: 17,
  online: 5,
  mqtt: { url: 'mqtt://broker:1883', topic_prefix: 'devices' },
}
const consumer = { url: 'http://c', ready: true, not_ready: {}, stored_per_second: 990, newest_stored_age_seconds: 0.4 }
const flow: Flow = {
  bridges: [bridge],
  kafka: {
    ready: true,
    problem: null,
    records_per_second: 998,
    lag: 12,
    partitions: [
      { partition: 0, lag: 12 },
      { partition: 1, lag: 0 },
    ],
  },
  consumers: [consumer, { ...consumer, newest_stored_age_seconds: 3.2 }],
  redis: { ready: true, problem: null },
  dead_letters: { last_5_minutes: 2 },
}
const shown = (one: Flow) =>
  hopsOf(afterFlow(noFlow, one)).map(({ name, state, why, value }) => [name, state, why, value])

test('five hops with their figures, summed over services', () => {
  expect(shown(flow)).toEqual([
    ['MQTT', 'ready', '', '1,000'],
    ['Bridge', 'ready', '', '17'],
    ['Kafka', 'ready', '', '12'],
    ['Consumer', 'ready', '', '1,980'],
    ['Redis', 'ready', '', '3 s'],
  ])
  expect(hopsOf(afterFlow(noFlow, flow)).map(({ arriving }) => arriving)).toEqual([null, 1000, 999, 1980, 1980])
  expect(figuresOf(flow).deadLetters).toBe(2)
})

test('a part that is away is named, and what is not known is no number', () => {
  const away = { ...bridge, ready: null, received_per_second: null, in_flight: null, published_per_second: null }
  expect(shown({ ...flow, bridges: [bridge, away] }).slice(0, 2)).toEqual([
    ['MQTT', 'ready', '', '–'],
    ['Bridge', 'away', '1 of 2 do not answer', '–'],
  ])
  const waiting = { ...consumer, ready: false, not_ready: { redis: 'connection refused' } }
  expect(shown({ ...flow, consumers: [waiting] })[3]).toEqual([
    'Consumer',
    'waiting',
    'redis: connection refused',
    '990',
  ])
  const broker = { ...bridge, ready: false, not_ready: { ingestion: 'not connected' } }
  expect(shown({ ...flow, bridges: [broker] })[0]?.slice(0, 3)).toEqual(['MQTT', 'away', 'not connected'])
  const kafka = { ready: false, problem: 'no broker', records_per_second: null, lag: null, partitions: null }
  expect(shown({ ...flow, kafka })[2]).toEqual(['Kafka', 'away', 'no broker', '–'])
  expect(hopsOf(noFlow).every(({ state, value }) => state === 'unknown' && value === '–')).toBe(true)
})

test('five minutes are kept, and no more', () => {
  let state = noFlow
  for (let lag = 0; lag < 400; lag++) state = afterFlow(state, { ...flow, kafka: { ...flow.kafka, lag } })
  expect([state.rings.lag.length, state.rings.lag[0], state.rings.lag.at(-1)]).toEqual([300, 100, 399])
})

test.each([
  ['mqtt://broker.example.com:1883/', '-h broker.example.com -p 1883 -q 1'],
  ['mqtt://mosquitto:1883', '-h page.local -p 1883 -q 1'],
  ['mqtt://127.0.0.1:28883', '-h page.local -p 28883 -q 1'],
  ['mqtt://broker.example.com', '-h broker.example.com -q 1'],
  ['mqtts://broker.example.com', '-h broker.example.com -p 8883 --tls-use-os-certs -q 1'],
  ['mqtts://broker.example.com:443', '-h broker.example.com -p 443 --tls-use-os-certs -q 1'],
  ['ws://broker.example.com:8080/mqtt', '-h broker.example.com -q 1'],
])('a first reading goes where the bridge listens: %s', (url, options) => {
  const line = firstReading({ url, topic_prefix: 'site/a' }, 'page.local')
  expect(line).toBe(`mosquitto_pub ${options} -t 'site/a/my-sensor/data' -m '{"temperature":21.50}'`)
})
