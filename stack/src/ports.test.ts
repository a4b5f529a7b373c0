import { spawn } from 'node:child_process'
import { expect, test } from 'vitest'
import { claimPort, isFree } from './ports.js'

test('processes that claim at the same time never get the same port', async () => {
  const script = `
    const { claimPort } = await import(${JSON.stringify(new URL('../dist/ports.js', import.meta.url).href)})
    const ports = []
    for (let count = 0; count < 200; count++) ports.push(await claimPort())
    process.send(ports)
    process.once('message', () => process.exit(0))`
  const children = Array.from({ length: 3 }, () =>
    spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] }),
  )
  const lists = await Promise.all(
    children.map(
      (child) => new Promise<number[]>((resolve) => child.once('message', (ports: number[]) => resolve(ports))),
    ),
  )
  for (const child of children) child.send('done')
  const all = lists.flat()
  expect(all).toHaveLength(600)
  expect(new Set(all).size).toBe(600)
})

test('a claimed port is free, and claimed once', async () => {
  const ports = await Promise.all(Array.from({ length: 50 }, () => claimPort()))
  expect(new Set(ports).size).toBe(50)
  for (const port of ports) expect(await isFree(port)).toBe(true)
})
