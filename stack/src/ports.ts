// Ports for servers that must come back on the same one: from a range that no outgoing connection is given, claimed
// among all processes of ours on this machine, so that none is looked up by one and taken by another.
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const FIRST = 20_000
const LAST = 32_000 // Linux gives outgoing connections ports from 32,768 on, macOS from 49,152
const TRIES = 1000
const ABANDONED_MS = 3_600_000
const CLAIMS = join(tmpdir(), 'iot-platform-ports')

const claimed = new Set<string>()
let isCleaned = false

/** A port of loopback that is this process's until it ends. */
export async function claimPort(): Promise<number> {
  if (!isCleaned) cleanUp()
  isCleaned = true
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const port = FIRST + Math.floor(Math.random() * (LAST - FIRST))
    if (!claim(port)) continue
    if (await isFree(port)) return port
  }
  throw new Error(`no free port between ${FIRST} and ${LAST}`)
}

/** Whether something could listen on the port. */
export function isFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer().once('error', () => resolve(false))
    probe.listen(port, host, () => probe.close(() => resolve(true)))
  })
}

/** Whether the claim is ours: the file system decides between two that ask at once. */
function claim(port: number): boolean {
  const file = join(CLAIMS, String(port))
  try {
    const handle = openSync(file, 'wx')
    writeSync(handle, String(process.pid))
    closeSync(handle)
    claimed.add(file)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Removes what processes left that were killed; recent claims stay, for a pid may have another process by now. */
function cleanUp(): void {
  mkdirSync(CLAIMS, { recursive: true })
  process.once('exit', () => {
    for (const file of claimed) rmSync(file, { force: true })
  })
  for (const name of readdirSync(CLAIMS)) {
    const file = join(CLAIMS, name)
    try {
      if (Date.now() - statSync(file).mtimeMs < ABANDONED_MS || isAlive(Number(readFileSync(file, 'utf8')))) continue
      rmSync(file, { force: true })
    } catch {
      // removed by another process just now
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
