import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test, vi } from 'vitest'
import { limitLog } from './log-limit.js'
import { createProcess } from './process.js'

const dir = mkdtempSync(join(tmpdir(), 'iot-log-'))
afterAll(() => rmSync(dir, { recursive: true }))

test('a log is left alone until it is past its limit, then emptied into .1, once', () => {
  const file = join(dir, 'quiet.log')
  expect(limitLog(file, 10)).toBe(false)
  writeFileSync(file, '0123456789')
  expect(limitLog(file, 10)).toBe(false)
  expect(readdirSync(dir)).toEqual(['quiet.log'])
  writeFileSync(file, '0123456789x')
  expect(limitLog(file, 10)).toBe(true)
  expect(readFileSync(`${file}.1`, 'utf8')).toBe('0123456789x')
  expect(readFileSync(file, 'utf8')).toBe('')
  writeFileSync(file, 'newer than before')
  expect(limitLog(file, 10)).toBe(true)
  expect(readFileSync(`${file}.1`, 'utf8')).toBe('newer than before')
})

test('a process goes on writing to its log after it was emptied, from its beginning', async () => {
  const file = join(dir, 'busy.log')
  const program = "let i = 0; setInterval(() => console.log('line', i++, 'x'.repeat(80)), 1)"
  const size = () => statSync(file).size
  const server = createProcess({
    name: 'writer',
    port: 0,
    logFile: file,
    command: [process.execPath, '-e', program],
    isUp: async () => size() > 5000,
  })
  await server.start()
  expect(limitLog(file, 5000)).toBe(true)
  expect(size()).toBeLessThan(5000)
  await vi.waitFor(() => expect(size()).toBeGreaterThan(1000), 10_000)
  await server.stop()
  const [first = 0, ...others] = readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => Number(line.split(' ')[1]))
  expect(first).toBeGreaterThan(0)
  expect(others).toEqual(others.map((_, index) => first + index + 1))
})
