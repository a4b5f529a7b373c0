import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeEach, expect, test, vi } from 'vitest'
import { claimPort } from './ports.js'
import { createProcess, type Server } from './process.js'
import { supervise } from './supervise.js'

const root = mkdtempSync(join(tmpdir(), 'iot-supervise-'))
afterAll(() => rmSync(root, { recursive: true }))

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(root, 'case-'))
})
const path = (name: string) => join(dir, name)
const count = (name: string) => readFileSync(path(name), 'utf8').length

/** A program that writes a mark when it starts, and ends at once with 1 while the file `broken` is there. */
function program(): Server {
  const script = `const fs = require('node:fs')
    fs.appendFileSync('${path('starts')}', 'x')
    if (fs.existsSync('${path('broken')}')) process.exit(1)
    fs.appendFileSync('${path('ups')}', 'x')
    setInterval(() => {}, 1000)`
  let ups = 0
  return createProcess({
    name: 'program',
    port: 0,
    logFile: path('log'),
    command: [process.execPath, '-e', script],
    isUp: async () => {
      try {
        const isNew = count('ups') > ups
        if (isNew) ups++
        return isNew
      } catch {
        return false // not written yet
      }
    },
  })
}

const die = (server: Server) => process.kill(server.pid?.() ?? 0, 'SIGKILL')

test('a program that fails at every start is started once after each pause, and the pauses grow', async () => {
  const server = program()
  await server.start()
  const pauses: number[] = []
  const lines: string[] = []
  let stopping = false
  supervise(server, {
    say: (line) => lines.push(line),
    isStopping: () => stopping,
    async pause(ms) {
      pauses.push(ms)
      if (pauses.length === 8) stopping = true
    },
  })
  writeFileSync(path('broken'), '')
  die(server)
  await vi.waitFor(() => expect(pauses).toHaveLength(8), 30_000)
  expect(pauses).toEqual([1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000])
  expect(count('starts')).toBe(1 + 7) // the first one, and one after each pause but the last
  expect(lines[0]).toBe('program ended (signal); starting it again in 1 s')
  expect(lines[1]).toBe(`program ended while starting: see ${path('log')}; starting it again in 2 s`)
  expect(lines).toHaveLength(8)
}, 60_000)

test('one that comes back is left alone; the pause starts small again only after a minute', async () => {
  const server = program()
  await server.start()
  const pauses: number[] = []
  const lines: string[] = []
  let nowMs = 0
  supervise(server, {
    say: (line) => lines.push(line),
    isStopping: () => false,
    pause: async (ms) => void pauses.push(ms),
    nowMs: () => nowMs,
  })
  const comesBack = (times: number) =>
    vi.waitFor(() => expect(lines.filter((line) => line === 'program is up again')).toHaveLength(times), 30_000)
  die(server)
  await comesBack(1)
  nowMs += 59_999
  die(server)
  await comesBack(2)
  nowMs += 60_000
  die(server)
  await comesBack(3)
  expect(pauses).toEqual([1000, 2000, 1000])
  expect(count('starts')).toBe(4)
  await server.stop()
  expect(pauses).toHaveLength(3) // told to end: not started again
}, 60_000)

test('an end while starting is the failure of start alone; a taken port is named', async () => {
  const exits: (number | null)[] = []
  const port = await claimPort()
  const failing = createProcess({
    name: 'failing',
    port,
    logFile: path('log'),
    command: [process.execPath, '-e', 'process.exit(1)'],
    isUp: async () => false,
  })
  failing.onExit = (code) => exits.push(code)
  await expect(failing.start()).rejects.toThrow(`failing ended while starting: see ${path('log')}`)
  const thief = createServer()
  await new Promise<void>((resolve) => thief.listen(port, '127.0.0.1', resolve))
  await expect(failing.start()).rejects.toMatchObject({ code: 'EADDRINUSE' })
  thief.close()
  const missing = createProcess({
    name: 'missing',
    port: 0,
    logFile: path('log'),
    command: [path('no-such-program')],
    isUp: async () => false,
  })
  await expect(missing.start()).rejects.toThrow('missing ended while starting')
  expect(exits).toEqual([])
}, 30_000)
