import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import ts from 'typescript'
import { expect, test } from 'vitest'
import { claimPort, isFree, onClaimedPort } from './ports.js'

const listen = (port: number) =>
  new Promise<Server>((resolve, reject) => {
    const server = createServer().once('error', reject)
    server.listen(port, '127.0.0.1', () => resolve(server))
  })

test('processes that claim at the same time never get the same port', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'iot-ports-'))
  const source = readFileSync(join(import.meta.dirname, 'ports.ts'), 'utf8')
  const options = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2023 }
  writeFileSync(join(dir, 'ports.mjs'), ts.transpileModule(source, { compilerOptions: options }).outputText)
  writeFileSync(
    join(dir, 'claim.mjs'),
    `import { claimPort } from './ports.mjs'
    const ports = []
    for (let count = 0; count < 300; count++) ports.push(await claimPort())
    process.send(ports)
    process.once('message', () => process.exit(0))`,
  )
  const children = Array.from({ length: 3 }, () =>
    spawn(process.execPath, [join(dir, 'claim.mjs')], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] }),
  )
  const claimed = (child: ChildProcess) => new Promise<number[]>((resolve) => child.once('message', resolve as never))
  const all = (await Promise.all(children.map(claimed))).flat()
  expect(all).toHaveLength(900)
  expect(new Set(all).size).toBe(900)
  for (const child of children) child.send('end')
  await Promise.all(children.map((child) => new Promise((resolve) => child.once('exit', resolve))))
  rmSync(dir, { recursive: true })
}, 30_000)

test('a claimed port is free, and claimed once', async () => {
  const ports = await Promise.all(Array.from({ length: 50 }, claimPort))
  expect(new Set(ports).size).toBe(50)
  for (const port of ports) expect(await isFree(port)).toBe(true)
})

test('a port that was taken between the claim and the start is left for another one', async () => {
  const tried: number[] = []
  let thief: Server | undefined
  const server = await onClaimedPort(async (port) => {
    tried.push(port)
    thief ??= await listen(port)
    return listen(port)
  })
  expect(tried).toHaveLength(2)
  expect(server.address()).toMatchObject({ port: tried[1] })
  server.close()
  thief?.close()
})

test('another failure is not tried again', async () => {
  let starts = 0
  const failing = onClaimedPort(async () => {
    starts++
    throw new Error('no disk')
  })
  await expect(failing).rejects.toThrow('no disk')
  expect(starts).toBe(1)
})
