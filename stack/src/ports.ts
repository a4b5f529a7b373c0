// Ports for servers that must come back on the same one: from a range that no outgoing connection is given, each claimed
// by one process of this machine until that process ends.
import { createSocket } from 'node:dgram'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'

const COUNT = 12_000
const BELOW = 32_000 // Linux gives outgoing connections ports from 32,768 on, macOS from 49,152
const TRIES = 1000
const STARTS = 3

/**
 * A port of loopback that no other caller is given while this process lives.
 * The claim is a UDP socket on that port, which no server of ours uses: the kernel gives it to one process only, and takes
 * it back when the process ends, however it ends.
 * @throws when there is none
 */
export async function claimPort(): Promise<number> {
  const below = lowestOfOutgoing()
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const port = below - 1 - Math.floor(Math.random() * COUNT)
    if ((await claim(port)) && (await isFree(port))) return port
  }
  throw new Error(`no free port between ${below - COUNT} and ${below}`)
}

/**
 * Starts a server on a claimed port; on another one when a process that claims nothing has taken the port meanwhile.
 * @param start rejects with the code EADDRINUSE when a port was taken, as `startProcess` does
 */
export async function onClaimedPort<T>(start: (port: number) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start(await claimPort())
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || attempt === STARTS) throw error
    }
  }
}

/** Whether something could listen on the port. */
export function isFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer().once('error', () => resolve(false))
    probe.listen(port, host, () => probe.close(() => resolve(true)))
  })
}

function claim(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createSocket('udp4')
    socket.unref()
    socket.once('error', () => {
      socket.close()
      resolve(false)
    })
    socket.bind({ port, address: '127.0.0.1', exclusive: true }, () => resolve(true))
  })
}

/** The end of the range: below what the system gives to outgoing connections, where there is room. */
function lowestOfOutgoing(): number {
  try {
    const lowest = Number.parseInt(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8'), 10)
    return lowest > COUNT + 1024 ? Math.min(lowest, BELOW) : BELOW
  } catch {
    return BELOW // not Linux
  }
}
