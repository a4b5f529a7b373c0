import { encodeMessage, guardKey, positionOf } from '@iot/shared/contract'
import { expect, test } from 'vitest'
import { planBatch } from '../batch.js'
import { planCalls } from './calls.js'
import { KNOWN_KEY } from './keys.js'
import { NO_LIMITS } from './scripts.js'

const NOW_S = 1_700_000_000
const RETENTION_S = 600
const OPTIONS = { retentionSeconds: RETENTION_S }

const devices = (...messages: [id: string, timestamp: number][]) =>
  planBatch(
    messages.map(([id, timestamp], offset) => ({
      key: Buffer.from(id),
      value: Buffer.from(encodeMessage(id, String(offset), String(timestamp))),
      offset: String(offset),
    })),
    'iot-data/0',
  ).devices

test('what each script is called with', () => {
  const calls = planCalls(devices(['a', NOW_S], ['b', NOW_S], ['a', NOW_S - 5]), 7, OPTIONS, NOW_S)
  expect(calls).toHaveLength(1)
  expect(calls[0]?.state).toEqual({
    keys: ['device:last_state:a', guardKey('a'), 'device:last_state:b', guardKey('b')],
    args: ['2', `${NOW_S - 5}`, positionOf(NOW_S - 5, 7, '2'), '1', `${NOW_S}`, positionOf(NOW_S, 7, '1')],
  })
  const text = (id: string, payload: string, timestamp: number) => encodeMessage(id, payload, String(timestamp))
  expect(calls[0]?.history).toEqual({
    keys: ['device:history:a', 'device:history:b'],
    args: [
      ...[RETENTION_S, `(${NOW_S - RETENTION_S}`, 'device-updates:a', 2],
      ...[`${NOW_S}`, text('a', '0', NOW_S), `${NOW_S - 5}`, text('a', '2', NOW_S - 5)],
      ...[`(${NOW_S - RETENTION_S}`, 'device-updates:b', 1, `${NOW_S}`, text('b', '1', NOW_S)],
    ],
  })
})

test('a clock that is ahead trims no further than the latest message allows', () => {
  const [call] = planCalls(devices(['a', NOW_S], ['a', NOW_S - 60]), 0, OPTIONS, NOW_S + 86_400)
  expect(call?.history.args[1]).toBe(`(${NOW_S - RETENTION_S}`)
})

test('where memory is scarce a history keeps what is young enough by the clock, and all is published', () => {
  const [call] = planCalls(devices(['a', NOW_S - 900]), 0, { ...OPTIONS, isScarce: true }, NOW_S)
  expect(call?.history.args.slice(1, 4)).toEqual([`(${NOW_S - RETENTION_S}`, 'device-updates:a', 1])
})

test('with a limit of devices both scripts learn who is known', () => {
  const limits = { ...NO_LIMITS, knownDevices: 5 }
  const [call] = planCalls(devices(['a', NOW_S], ['b', NOW_S]), 0, { ...OPTIONS, limits }, NOW_S)
  expect(call?.state.keys.slice(4)).toEqual([KNOWN_KEY])
  expect(call?.history.keys).toEqual(['device:history:a', 'device:history:b', guardKey('a'), guardKey('b')])
})

test('with a limit of bytes a history is measured about 64 times while it could fill, whoever fills it', () => {
  const limits = { ...NO_LIMITS, historyBytes: 64_000 }
  const work = devices(['a', NOW_S], ['b', NOW_S], ['b', NOW_S], ['b', NOW_S])
  const size = encodeMessage('a', '0', String(NOW_S)).length
  const chosen = (random: number) => planCalls(work, 0, { ...OPTIONS, limits }, NOW_S, () => random)[0]?.history.args[1]
  expect([0, (size - 1) / 1000, (size + 1) / 1000, (4 * size - 1) / 1000, (4 * size + 1) / 1000].map(chosen)).toEqual([
    ...[1, 1, 2, 2, 0],
  ])
})

test('a replay publishes nothing, and adds nothing to a history that is older than the retention', () => {
  const old = NOW_S - RETENTION_S - 1
  const options = { ...OPTIONS, isReplay: true }
  const [call] = planCalls(devices(['a', old], ['a', NOW_S - RETENTION_S], ['b', old]), 0, options, NOW_S)
  expect(call?.state.args).toEqual([
    ...['1', `${NOW_S - RETENTION_S}`, positionOf(NOW_S - RETENTION_S, 0, '1')],
    ...['2', `${old}`, positionOf(old, 0, '2')],
  ])
  const kept = encodeMessage('a', '1', String(NOW_S - RETENTION_S))
  expect(call?.history.args).toEqual([
    ...[RETENTION_S, `(${NOW_S - 2 * RETENTION_S}`, '', 1, `${NOW_S - RETENTION_S}`, kept],
    ...[`(${old - RETENTION_S}`, '', 0],
  ])
})

test('a call takes devices until it has a hundred messages; a device is never divided', () => {
  const many = Array.from({ length: 250 }, (_, index): [string, number] => [`d${index}`, NOW_S])
  const big = Array.from({ length: 300 }, (): [string, number] => ['big', NOW_S])
  const sizes = (calls: ReturnType<typeof planCalls>) => calls.map(({ devices }) => devices.length)
  expect(sizes(planCalls(devices(...many), 0, OPTIONS, NOW_S))).toEqual([100, 100, 50])
  expect(sizes(planCalls(devices(['x', NOW_S], ...big, ['y', NOW_S]), 0, OPTIONS, NOW_S))).toEqual([2, 1])
})

test('a device without a message is a bug, not an empty state', () => {
  const empty = { deviceId: 'a', messages: [], records: [] }
  expect(() => planCalls([empty], 0, OPTIONS, NOW_S)).toThrow('without a message')
})
