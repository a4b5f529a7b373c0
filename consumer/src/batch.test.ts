import { encodeMessage } from '@iot/shared/contract'
import { expect, test } from 'vitest'
import { planBatch } from './batch.js'

const record = (deviceId: string, payload: string, offset: number) => ({
  key: Buffer.from(deviceId),
  value: Buffer.from(encodeMessage(deviceId, payload, '1678886400')),
  offset: String(offset),
})

test('the work is merged per device, in order', () => {
  const { devices, rejected } = planBatch([record('a', '1', 5), record('b', '2', 6), record('a', '3', 7)], 'iot-data/0')
  expect(rejected).toEqual([])
  expect(devices.map(({ deviceId, messages }) => [deviceId, messages.map(({ payload }) => payload)])).toEqual([
    ['a', ['1', '3']],
    ['b', ['2']],
  ])
})

test.each([
  ['a tombstone', Buffer.from('a'), null],
  ['no key', null, record('a', '1', 0).value],
  ['the key of another device', Buffer.from('b'), record('a', '1', 0).value],
  ['spaces between fields', Buffer.from('a'), Buffer.from('{"device_id": "a","payload":1,"timestamp":1}')],
  ['a fourth field', Buffer.from('a'), Buffer.from('{"device_id":"a","payload":1,"x":2,"timestamp":1}')],
  ['a payload that is not JSON', Buffer.from('a'), Buffer.from('{"device_id":"a","payload":nope,"timestamp":1}')],
  ['two timestamps', Buffer.from('a'), Buffer.from('{"device_id":"a","payload":1,"timestamp":1,"timestamp":2}')],
  ['a timestamp with a fraction', Buffer.from('a'), Buffer.from('{"device_id":"a","payload":1,"timestamp":1.5}')],
  ['broken UTF-8', Buffer.from('a'), Buffer.from([0xc3, 0x28])],
])('%s is rejected with its bytes and where it stood', (_name, key, value) => {
  const { devices, rejected } = planBatch([{ key, value, offset: '9' }, record('a', '1', 10)], 'iot-data/3')
  expect(rejected).toEqual([{ reason: 'invalid_message', source: 'iot-data/3@9', value }])
  expect(devices).toHaveLength(1)
})
