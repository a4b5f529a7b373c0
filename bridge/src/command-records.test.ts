import { expect, test } from 'vitest'
import { createCommandRecords } from './command-records.js'

const reply = (command_id: string, status = 'succeeded', result?: unknown) =>
  Buffer.from(JSON.stringify({ command_id, status, result }))

test('from sent to the word of the device', async () => {
  const records = createCommandRecords()
  expect(records.add('1', 'a', 60_000)).toBe(true)
  expect(records.add('1', 'a', 60_000)).toBe(false)
  expect(records.get('1')).toMatchObject({ command_id: '1', device_id: 'a', status: 'sent' })
  records.acknowledged('1')
  expect(records.get('1')?.status).toBe('acknowledged')
  const settled = records.settled('1', 60_000)
  expect(records.reply('a', reply('1', 'failed', { why: 'jammed' }))).toBe(true)
  expect(await settled).toMatchObject({ status: 'failed', result: { why: 'jammed' } })
  expect(records.reply('a', reply('1'))).toBe(false)
  expect(records.get('1')?.status).toBe('failed')
})

test('only the device itself is believed, and only a reply of the right form', () => {
  const records = createCommandRecords()
  records.add('1', 'a', 60_000)
  expect(records.reply('b', reply('1'))).toBe(false)
  expect(records.reply('a', reply('2'))).toBe(false)
  expect(records.reply('a', reply('1', 'perhaps'))).toBe(false)
  for (const text of ['', 'null', '[]', '{"command_id":"1"}']) expect(records.reply('a', Buffer.from(text))).toBe(false)
  expect(records.get('1')?.status).toBe('sent')
})

test('a command expires, and is not revived', async () => {
  let now = 0
  const records = createCommandRecords(() => now)
  records.add('1', 'a', 1000)
  expect((await records.settled('1', 1))?.status).toBe('sent')
  now = 1001
  expect(records.get('1')?.status).toBe('expired')
  expect(records.reply('a', reply('1'))).toBe(false)
  records.add('2', 'a', 1000)
  records.withdraw('2')
  expect(records.get('2')?.status).toBe('expired')
})

test('the newest are kept', () => {
  const records = createCommandRecords()
  for (let id = 0; id <= 10_000; id++) records.add(String(id), 'a', 60_000)
  expect(records.get('0')).toBeUndefined()
  expect(records.get('1')).toBeDefined()
  expect(records.get('10000')).toBeDefined()
})
