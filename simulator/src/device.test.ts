import { expect, test } from 'vitest'
import { createDevice, parseDuration, replyTo } from './device.js'

test('readings drift within bounds and are numbered', () => {
  const device = createDevice('sim-1', 1000)
  const readings = Array.from({ length: 1000 }, () => JSON.parse(device.reading()))
  expect(readings.map(({ seq }) => seq)).toEqual(Array.from({ length: 1000 }, (_, seq) => seq))
  for (const [index, { temperature }] of readings.entries()) {
    expect(temperature).toBeGreaterThanOrEqual(-10)
    expect(temperature).toBeLessThanOrEqual(45)
    if (index > 0) expect(Math.abs(temperature - readings[index - 1].temperature)).toBeLessThanOrEqual(0.22)
  }
})

test('start, stop and set_interval are obeyed, anything else is not', () => {
  const device = createDevice('sim-1', 1000)
  expect(device.obey('{"command":"stop"}')).toBe(true)
  expect(device.running).toBe(false)
  expect(device.obey('{"command":"start"}')).toBe(true)
  expect(device.running).toBe(true)
  expect(device.obey('{"command":"set_interval","interval":"250ms"}')).toBe(true)
  expect(device.intervalMs).toBe(250)
  for (const text of [
    '',
    'null',
    '{"command":"dance"}',
    '{"command":"set_interval","interval":"0s"}',
    '{"command":"set_interval"}',
  ])
    expect(device.obey(text), text).toBe(false)
  expect(device.intervalMs).toBe(250)
})

test('durations', () => {
  expect(['500ms', '1s', '1.5s', '2m', '0s', '5', 's'].map(parseDuration)).toEqual([
    500,
    1000,
    1500,
    120_000,
    null,
    null,
    null,
  ])
})

test('a command with an id is answered', () => {
  const reply = (text: string, understood: boolean) => JSON.parse(replyTo(text, understood) ?? 'null')
  expect(reply('{"command":"stop","command_id":"1"}', true)).toEqual({
    command_id: '1',
    status: 'succeeded',
    result: { command: 'stop' },
  })
  expect(reply('{"command":"dance","command_id":"2"}', false)).toMatchObject({ command_id: '2', status: 'failed' })
  expect(reply('{"command":"stop"}', true)).toBeNull()
  expect(reply('nonsense', false)).toBeNull()
})
