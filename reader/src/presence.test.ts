// The bridges here are servers that answer what the test says.
import { createServer, type Server } from 'node:http'
import { pino } from 'pino'
import { afterEach, expect, test, vi } from 'vitest'
import { createPresence } from './presence.js'

const WAIT = { timeout: 20_000 }
const closers: (() => void)[] = []
afterEach(() => {
  for (const close of closers.splice(0)) close()
})

type Bridge = { url: string; answers: object[]; asked: string[]; server: Server; fails: boolean }

/** A bridge that gives its answers in turn, then nothing new. */
async function bridge(...answers: object[]): Promise<Bridge> {
  const server = createServer((request, response) => {
    one.asked.push(`${request.url} ${request.headers.authorization}`)
    const answer = one.answers.shift() ?? { version: 'last', online: [], offline: [] }
    response.writeHead(one.fails ? 500 : 200).end(JSON.stringify(answer))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  const one: Bridge = { url: `http://127.0.0.1:${port}`, answers, asked: [], server, fails: false }
  closers.push(() => server.close().closeAllConnections())
  return one
}

function follow(bridges: Bridge[]) {
  const presence = createPresence(
    bridges.map(({ url }) => url),
    'a-key',
    pino({ level: 'silent' }),
  )
  const told: [string, boolean | null][] = []
  presence.onChange((id, online) => void told.push([id, online]))
  presence.start()
  closers.push(presence.stop)
  return { presence, told }
}

test('what has changed is asked for, told and joined', async () => {
  const first = await bridge({ version: '1', all: ['a', 'b'] }, { version: '2', online: ['c'], offline: ['a'] })
  const second = await bridge({ version: 'x', all: ['b'] })
  const { presence, told } = follow([first, second])
  expect(presence.current('a')).toBe(null)
  await vi.waitFor(() => expect(told).toContainEqual(['a', false]), WAIT)
  expect(['a', 'b', 'c', 'd'].map(presence.current)).toEqual([false, true, true, false])
  expect(presence.bridgeOf('c')).toBe(first.url)
  expect(new Set(presence.online())).toEqual(new Set(['b', 'c']))
  expect(presence.check()).toBe(null)
  expect(told.filter(([id]) => id === 'b')).toEqual([['b', true]])
  expect(first.asked.slice(0, 2)).toEqual(['/presence Bearer a-key', '/presence?since=1 Bearer a-key'])
})

test('a bridge that does not answer: nobody knows of its devices, until it is back with what changed meanwhile', async () => {
  const first = await bridge({ version: '1', all: ['a', 'both'] })
  const second = await bridge({ version: '1', all: ['b', 'both'] })
  const { presence, told } = follow([first, second])
  await vi.waitFor(() => expect(presence.check()).toBe(null), WAIT)
  first.fails = true
  await vi.waitFor(() => expect(told).toContainEqual(['a', null]), WAIT)
  expect(['a', 'b', 'both', 'nobody'].map(presence.current)).toEqual([null, true, true, null])
  expect(presence.check()).toContain(first.url)
  expect(told.map(([id]) => id)).not.toContain('nobody')
  first.answers.push({ version: '9', all: ['new'] })
  first.fails = false
  await vi.waitFor(() => expect(told).toContainEqual(['a', false]), WAIT)
  expect(['a', 'new', 'both', 'nobody'].map(presence.current)).toEqual([false, true, true, false])
})
