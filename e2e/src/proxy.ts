// A TCP proxy that does harm: stops forwarding without closing (a half-open connection), forwards slowly or in small
// pieces, cuts connections, changes bytes.
import { connect, createServer, type Socket } from 'node:net'

export type Direction = 'up' | 'down'
/**
 * How it forwards: pieces of at most `pieceBytes`, a wait before each chunk, a cut after so many bytes that way; `spoil`
 * changes what comes down.
 */
export type Shape = {
  pieceBytes?: number
  delayMs?: number
  cut?: { direction: Direction; afterBytes: number }
  spoil?: (chunk: Buffer) => Buffer
}

export type TcpProxy = {
  readonly port: number
  /** The port that it forwards to; may be set after the proxy's own is known. */
  target: number
  shape: Shape
  /** How many connections were made to it. */
  connections: number
  /** Forwards nothing more that way, on any connection, new ones included; nobody is told. */
  stall(direction: Direction): void
  /** What was held back goes on. */
  heal(): void
  close(): Promise<void>
}

export async function createProxy(target = 0): Promise<TcpProxy> {
  const sockets = new Set<Socket>()
  const stalled = new Set<Direction>()
  let healed = () => {}
  let healing = Promise.resolve()

  const pump = async (from: Socket, to: Socket, direction: Direction) => {
    let count = 0
    try {
      for await (const received of from as AsyncIterable<Buffer>) {
        while (stalled.has(direction)) await healing
        const { pieceBytes = received.length, delayMs = 0, cut, spoil } = proxy.shape
        const chunk = spoil && direction === 'down' ? spoil(received) : received
        if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs))
        for (let at = 0; at < chunk.length && !to.destroyed; at += pieceBytes) {
          if (!to.write(chunk.subarray(at, at + pieceBytes))) await drained(to)
        }
        count += chunk.length
        if (cut?.direction === direction && count > cut.afterBytes) break
      }
    } catch {
      // a connection that ended: the other end is told below
    }
    while (stalled.has(direction)) await healing
    from.destroy()
    to.end() // what was forwarded is read before the end
  }

  const server = createServer({ noDelay: true }, (client) => {
    proxy.connections++
    const upstream = connect({ host: '127.0.0.1', port: proxy.target, noDelay: true })
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.once('close', () => sockets.delete(socket))
    }
    void pump(client, upstream, 'up')
    void pump(upstream, client, 'down')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))

  const proxy: TcpProxy = {
    port: (server.address() as { port: number }).port,
    target,
    shape: {},
    connections: 0,
    stall(direction) {
      stalled.add(direction)
      healing = new Promise((resolve) => {
        healed = resolve
      })
    },
    heal() {
      stalled.clear()
      healed()
    },
    async close() {
      proxy.heal()
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return proxy
}

const drained = (socket: Socket) =>
  new Promise<void>((resolve) => {
    const done = () => {
      socket.off('drain', done)
      socket.off('close', done)
      resolve()
    }
    socket.once('drain', done)
    socket.once('close', done)
  })
