// A service killed at its n-th write after it was started, counted by strace: in the middle of its handshakes, of a batch,
// between a record and its acknowledgement. Linux; root, or a kernel that lets a process trace others of its user.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { withDeadline } from '@iot/shared/lifecycle'
import type { Platform, Service } from '../platform.js'
import type { Cell } from './cell.js'

const SERVICES = ['bridge', 'consumer'] as const
export const WRITES_LOAD = { devices: 20, rate: 200 }
const CALLS = 'write,writev,sendto,sendmsg' // what Node writes to sockets and files with
const LAST = 50
const TOGETHER = 10
const KILLED_MS = 60_000

export const hasStrace = (): boolean => spawnSync('strace', ['-V']).status === 0

/** Kills a service that was just started at its `n`-th write from now, before it is done, and starts it again. */
export async function killAtWrite(service: Service, n: number): Promise<void> {
  const ended = service.ended()
  const inject = `inject=${CALLS}:signal=SIGKILL:when=${n}`
  const target = ['-f', '-p', String(service.pid())]
  const strace = spawn('strace', ['-qq', '-o', '/dev/null', '-e', `trace=${CALLS}`, '-e', inject, ...target])
  let said = ''
  strace.stderr.on('data', (text) => {
    said += text
  })
  const left = once(strace, 'close')
  const code = await withDeadline(Promise.race([ended, left.then(() => ended)]), KILLED_MS, `write ${n}: ${said}`)
  if (code !== null) throw new Error(`it ended by itself at write ${n}, with ${code}: ${service.log()}`)
  await left
  await service.start()
}

/** The cells of `npm run chaos -- --writes`: ten kills each. */
export const writeCells = (platform: Platform): Cell[] =>
  SERVICES.flatMap((name) =>
    Array.from({ length: LAST / TOGETHER }, (_, index) => index * TOGETHER + 1).map((from) => ({
      name: `${name}-writes-${from}-${from + TOGETHER - 1}`,
      async harm() {
        for (let n = from; n < from + TOGETHER; n++) await killAtWrite(platform[name], n)
      },
    })),
  )
