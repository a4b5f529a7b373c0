import { expect, test } from 'vitest'
import { createCommandRecords, recordText } from './command-records.js'

const reply = (command_id: string, status = 'succeeded', result?: unknown) =>
  Buffer.from(JSON.stringify({ command_id, status, result }))

test('from sent to the word of the device', async () => {
  const records = createCommandRecords()
  expect(records.add('1', 'a', 60_000)).toBe(true)
  expect(records.add('1', 'a', 60_000)).toBe(false)
  expect(records.get('1')).toMatchObject({ command_id: '1', device_id: 'a', status: 'sent' })
  records.acknowledged('1', true)
  expect(records.get('1')?.status).toBe('acknowledged')
  const settled = records.settled('1', 60_000)
  expect(records.reply('a', reply('1', 'failed', { why: 'jammed' }))).toBe('matched')
  expect(await settled).toMatchObject({ status: 'failed', result: '{"why":"jammed"}' })
  expect(records.reply('a', reply('1'))).toBe('ignored')
  expect(records.get('1')?.status).toBe('failed')
})

test('only the device itself is believed, and only a reply of the right form', () => {
  const records = createCommandRecords()
  records.add('1', 'a', 60_000)
  expect(records.reply('b', reply('1'))).toBe('ignored')
  expect(records.reply('a', reply('2'))).toBe('ignored')
  expect(records.reply('a', reply('1', 'perhaps'))).toBe('ignored')
  for (const text of ['', 'null', '[]', '{"command_id":"1"}'])
    expect(records.reply('a', Buffer.from(text))).toBe('ignored')
  expect(records.get('1')?.status).toBe('sent')
})

test('a command expires, and is not revived', async () => {
  let now = 0
  const records = createCommandRecords(() => now)
  records.add('1', 'a', 1000)
  expect((await records.settled('1', 1))?.status).toBe('sent')
  now = 1001
  expect(records.get('1')?.status).toBe('expired')
  expect(records.reply('a', reply('1'))).toBe('ignored')
  records.add('2', 'a', 1000)
  records.withdraw('2', true)
  expect(records.get('2')?.status).toBe('expired')
})

test('the newest are kept', () => {
  const records = createCommandRecords()
  for (let id = 0; id <= 10_000; id++) records.add(String(id), 'a', 60_000)
  expect(records.get('0')).toBeUndefined()
  expect(records.get('1')).toBeDefined()
  expect(records.get('10000')).toBeDefined()
})

test('what was not sent leaves its id free', () => {
  const records = createCommandRecords()
  records.add('1', 'a', 60_000)
  records.withdraw('1', false)
  expect(records.get('1')).toBeUndefined()
  expect(records.add('1', 'a', 60_000)).toBe(true)
})

test('a result keeps its digits, however deep it is', () => {
  const records = createCommandRecords()
  records.add('1', 'a', 60_000)
  const result = `{"n":1.10,"deep":${'['.repeat(8000)}${']'.repeat(8000)}}`
  expect(records.reply('a', Buffer.from(`{"command_id":"1","result":${result},"status":"failed"}`))).toBe('matched')
  const record = records.get('1')
  expect(record && recordText(record)).toContain(`"result":${result}`)
})

test('replies are bounded: each, and all together', () => {
  const records = createCommandRecords()
  const large = JSON.stringify('x'.repeat(16_000))
  for (let id = 0; id < 3000; id++) {
    records.add(String(id), 'a', 60_000)
    records.reply('a', Buffer.from(`{"command_id":"${id}","status":"succeeded","result":${large}}`))
  }
  const kept = Array.from({ length: 3000 }, (_, id) => records.get(String(id))?.result?.length ?? 0)
  expect(kept.reduce((sum, length) => sum + length)).toBeLessThanOrEqual(16_000_000)
  expect(kept.at(-1)).toBe(large.length)
  expect(records.get('0')).toMatchObject({ status: 'succeeded' })
  records.add('huge', 'a', 60_000)
  const huge = Buffer.from(`{"command_id":"huge","status":"succeeded","result":"${'x'.repeat(20_000)}"}`)
  expect(records.reply('a', huge)).toBe('too_large')
  expect(records.get('huge')?.status).toBe('sent')
})

test('a stop ends every wait', async () => {
  const records = createCommandRecords()
  records.add('1', 'a', 60_000)
  const settled = records.settled('1', 60_000)
  records.stop()
  expect((await settled)?.status).toBe('sent')
})
