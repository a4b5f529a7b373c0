import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test, vi } from 'vitest'
import type { Server } from './process.js'
import { restartOnChange } from './restart.js'

const closers: (() => void)[] = []
afterEach(() => {
  for (const close of closers.splice(0).reverse()) close()
})

test('many files of a build are one restart; one that does not start is tried at the next change', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'iot-restart-'))
  closers.push(() => rmSync(folder, { recursive: true }))
  mkdirSync(join(folder, 'kafka'))
  const start = vi.fn(async () => {})
  const stop = vi.fn(async () => {})
  const lines: string[] = []
  const server = { name: 'bridge', start, stop } as unknown as Server
  closers.push(restartOnChange(server, [folder], (line) => lines.push(line)))
  for (let file = 0; file < 20; file++) writeFileSync(join(folder, 'kafka', `${file}.js`), '')
  await vi.waitFor(() => expect(lines).toEqual(['bridge has changed; restarting it', 'bridge is up again']), 10_000)
  expect([start.mock.calls.length, stop.mock.calls.length]).toEqual([1, 1])
  start.mockRejectedValueOnce(new Error('bridge ended with exit code 1'))
  writeFileSync(join(folder, 'main.js'), '')
  await vi.waitFor(() => expect(lines.at(-1)).toBe('bridge ended with exit code 1'), 10_000)
  writeFileSync(join(folder, 'main.js'), 'better')
  await vi.waitFor(() => expect(lines.at(-1)).toBe('bridge is up again'), 10_000)
})
