// The checker finds each planted fault, and counts it as what it is.
import { expect, test } from 'vitest'
import { type Counts, check, type Found, payloadOf, type Sent } from './check.js'

const DEVICES = ['a', 'b']
const COUNT = 10

const textOf = (device: string, seq: number, timestamp = 1000 + seq) =>
  `{"device_id":"${device}","payload":${payloadOf(device, seq)},"timestamp":${timestamp}}`

function sound(): { sent: Sent; found: Found } {
  const sent: Sent = new Map()
  const found: Found = { records: new Map(), histories: new Map(), lastStates: new Map(), deadLetters: 0 }
  for (const [partition, device] of DEVICES.entries()) {
    const texts = Array.from({ length: COUNT }, (_, seq) => textOf(device, seq))
    sent.set(
      device,
      texts.map((_, seq) => 5000 + seq),
    )
    found.records.set(
      device,
      texts.map((text) => ({ partition, text })),
    )
    found.histories.set(device, texts)
    found.lastStates.set(device, { payload: payloadOf(device, COUNT - 1), timestamp: String(1000 + COUNT - 1) })
  }
  return { sent, found }
}

const clean: Counts = {
  sent: 20,
  in_kafka: 20,
  missing: 0,
  lost_by_broker: 0,
  out_of_order: 0,
  repeated: 0,
  foreign: 0,
  missing_in_history: 0,
  wrong_last_state: 0,
}

test('a sound run has nothing to report, also with a reading that had no PUBACK but arrived', () => {
  const { sent, found } = sound()
  expect(check(sent, found)).toEqual(clean)
  sent.get('a')?.splice(3, 1, undefined)
  expect(check(sent, found)).toEqual({ ...clean, sent: 19 })
})

type Plant = (found: Found, sent: Sent) => void
const recordsOf = (found: Found, device = 'a') => found.records.get(device) ?? []
const historyOf = (found: Found, device = 'a') => found.histories.get(device) ?? []

test.each<[string, Plant, Partial<Counts>]>([
  [
    'a lost reading',
    (found) => {
      recordsOf(found).splice(4, 1)
      historyOf(found).splice(4, 1)
    },
    { in_kafka: 19, missing: 1 },
  ],
  [
    'a swapped pair',
    (found) => recordsOf(found).splice(4, 2, ...recordsOf(found).slice(4, 6).reverse()),
    { out_of_order: 1 },
  ],
  [
    'a repeated reading',
    (found) => recordsOf(found).splice(5, 0, recordsOf(found)[2] ?? { partition: 0, text: '' }),
    { in_kafka: 21, repeated: 1 },
  ],
  [
    'an old reading at the end',
    (found) => recordsOf(found).push(recordsOf(found)[2] ?? { partition: 0, text: '' }),
    { in_kafka: 21, repeated: 1, wrong_last_state: 1 },
  ],
  [
    'a stale last_state',
    (found) => found.lastStates.set('a', { payload: payloadOf('a', 8), timestamp: '1008' }),
    { wrong_last_state: 1 },
  ],
  ['no last_state', (found) => found.lastStates.delete('b'), { wrong_last_state: 1 }],
  [
    "a last_state with another reading's timestamp",
    (found) => found.lastStates.set('b', { payload: payloadOf('b', 9), timestamp: '1008' }),
    { wrong_last_state: 1 },
  ],
  ['a missing history entry', (found) => historyOf(found).splice(0, 1), { missing_in_history: 1 }],
  ['a foreign history entry', (found) => historyOf(found).push(textOf('a', 3, 1)), { foreign: 1 }],
  [
    'a foreign payload',
    (found) => recordsOf(found).push({ partition: 0, text: textOf('b', 3) }),
    { in_kafka: 21, foreign: 1 },
  ],
  [
    'a changed payload',
    (found) => {
      recordsOf(found)[3] = { partition: 0, text: textOf('a', 3).replace('"seq":3', '"seq":3.0') }
    },
    { foreign: 2, missing: 1 }, // the record, and the history's entry that no record explains
  ],
  [
    'a number that was never sent',
    (found) => recordsOf(found).push({ partition: 0, text: textOf('a', COUNT) }),
    { in_kafka: 21, foreign: 1 },
  ],
  [
    'an unknown device',
    (found) => found.records.set('c', [{ partition: 0, text: textOf('c', 0) }]),
    { in_kafka: 21, foreign: 1 },
  ],
  [
    'a device in two partitions',
    (found) => {
      recordsOf(found)[9] = { partition: 5, text: textOf('a', 9) }
    },
    { out_of_order: 1 },
  ],
  [
    'a dead letter',
    (found) => {
      found.deadLetters = 1
    },
    { foreign: 1 },
  ],
])('%s is found', (_name, plant, expected) => {
  const { sent, found } = sound()
  plant(found, sent)
  expect(check(sent, found)).toMatchObject(expected)
})

test('what the broker lost is counted apart, and only within the given span', () => {
  const { sent, found } = sound()
  for (const seq of [2, 7]) {
    const text = textOf('a', seq)
    found.records.set(
      'a',
      recordsOf(found).filter((record) => record.text !== text),
    )
    found.histories.set(
      'a',
      historyOf(found).filter((member) => member !== text),
    )
  }
  const span = { fromMs: 5000, toMs: 5005 }
  expect(check(sent, found, [span])).toEqual({ ...clean, in_kafka: 18, missing: 1, lost_by_broker: 1 })
})
