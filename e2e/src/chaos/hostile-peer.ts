// A proxy that is the real server up to a point, and from there on, on that connection, whatever a seed draws. Requests
// always reach the real server while the connection lasts: an answer is damaged, and what was asked is done.
import { connect, createServer, type Socket } from 'node:net'
import { DEEDS } from './deeds.js'
import type { PeerName, Protocol } from './protocols.js'
import { createRandom } from './random.js'

const MOST_HONEST_BYTES = 20_000
const NAMES = Object.keys(DEEDS)
const SEEN = 20
const ENDLESS_BYTES = 64_000_000
const CHUNK_BYTES = 65_536
const CHATTER_MS = 20
const UNASKED_MS = 1000
const LONG_LIFE_MS = 12_000

/** What came of one connection. */
export type Session = { seed: number; honestBytes: number; deeds: string[]; end: string }

export type HostilePeer = {
  readonly port: number
  /** The port of the real server; may be set after the peer's own is known. */
  target: number
  /**
   * Makes each of the next `count` connections a hostile session, the ones that are open now included.
   * @param seed of the first; each session after it has the next one
   * @param isVictim whether a connection that begins with these bytes is to be struck
   * @returns when the last of them is over; from then on the peer is honest
   */
  strike(seed: number, count: number, isVictim?: (first: Buffer) => boolean): Promise<Session[]>
  /** How far the sessions are, in words. */
  state(): string
  close(): Promise<void>
}

type Strike = { seeds: number[]; isVictim: (first: Buffer) => boolean; over: (session: Session) => void }

export async function createHostilePeer(protocol: Protocol): Promise<HostilePeer> {
  const links = new Set<Link>()
  let strike: Strike | null = null
  const draft = (link: Link) => {
    if (!strike || link.isHostile || link.first.length === 0 || !strike.isVictim(link.first)) return
    const seed = strike.seeds.shift()
    if (seed === undefined) return
    links.delete(link)
    links.add(link) // the last to get another one: perhaps nothing is ever said here
    link.turnHostile(seed, strike.over)
  }
  const draftAll = () => [...links].forEach(draft)
  const server = createServer({ noDelay: true }, (client) => {
    const link = createLink(client, connect({ host: '127.0.0.1', port: peer.target, noDelay: true }), protocol, draft)
    links.add(link)
    client.once('close', () => links.delete(link))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const peer: HostilePeer = {
    port: (server.address() as { port: number }).port,
    target: 0,
    strike(seed, count, isVictim = () => true) {
      const sessions: Session[] = []
      return new Promise((resolve) => {
        const seeds = Array.from({ length: count }, (_, index) => seed + index)
        const over = (session: Session) => {
          if (session.deeds.length > 0) sessions.push(session)
          else seeds.push(session.seed) // it ended before its time: another connection's turn
          setImmediate(draftAll)
          if (sessions.length < count) return
          strike = null
          resolve(sessions)
        }
        strike = { seeds, isVictim, over }
        draftAll()
      })
    },
    state: () => `${links.size} connections, seeds left: ${strike?.seeds.join() ?? 'none'}`,
    async close() {
      for (const link of links) link.end()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return peer
}

type Link = {
  /** What the client sent first. */
  readonly first: Buffer
  readonly isHostile: boolean
  turnHostile(seed: number, over: (session: Session) => void): void
  end(): void
}

function createLink(client: Socket, server: Socket, protocol: Protocol, onFirst: (link: Link) => void): Link {
  let first: Buffer = Buffer.alloc(0)
  let hostile: ReturnType<typeof createHostility> | null = null
  const requests = createRequests(protocol.name)
  const toClient = createFramer(protocol, (packet) => {
    if (hostile) hostile.hear(packet, requests.of(packet))
    else if (!client.destroyed) client.write(packet)
  })
  const end = () => {
    client.destroy()
    server.destroy()
  }
  const link: Link = {
    get first() {
      return first
    },
    get isHostile() {
      return hostile !== null || client.destroyed
    },
    turnHostile(seed, over) {
      hostile = createHostility(seed, protocol, client, server, (session) => {
        hostile = null
        over(session)
      })
    },
    end,
  }
  client.on('data', (chunk) => {
    if (first.length === 0) {
      first = chunk
      onFirst(link)
    }
    requests.hear(chunk)
    if (!server.destroyed && !hostile?.isDeaf) server.write(chunk)
  })
  server.on('data', toClient)
  for (const socket of [client, server]) {
    socket.on('error', () => {})
    socket.once('close', () => {
      hostile?.over('the connection ended')
      end()
    })
  }
  return link
}

/** Cuts a stream into its packets, whatever pieces it comes in. */
function createFramer({ lengthOf }: Pick<Protocol, 'lengthOf'>, onPacket: (packet: Buffer) => void) {
  let rest: Buffer = Buffer.alloc(0)
  return (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    for (;;) {
      const length = rest.length === 0 ? null : lengthOf(rest)
      if (length === null || rest.length < length) return
      const packet = rest.subarray(0, length)
      rest = rest.subarray(length)
      onPacket(packet)
    }
  }
}

/** Remembers what each answer of Kafka's is an answer to: the request's kind, by its number. */
function createRequests(name: PeerName) {
  const kinds = new Map<number, number>()
  const lengthOf = (bytes: Buffer) => (bytes.length < 4 ? null : 4 + bytes.readUInt32BE(0))
  const hear = createFramer({ lengthOf }, (packet) => kinds.set(packet.readInt32BE(8), packet.readInt16BE(4)))
  const isKafka = name === 'kafka'
  return {
    hear: (chunk: Buffer) => isKafka && hear(chunk),
    of: (packet: Buffer) => (isKafka && packet.length >= 8 ? kinds.get(packet.readInt32BE(4)) : undefined),
  }
}

/** One hostile session on a connection: honest for some bytes or some time, then deed after deed until its life ends. */
function createHostility(
  seed: number,
  protocol: Protocol,
  client: Socket,
  server: Socket,
  onOver: (session: Session) => void,
) {
  const random = createRandom(seed)
  const session: Session = { seed, honestBytes: 0, deeds: [], end: '' }
  const honestBytes = Math.floor(MOST_HONEST_BYTES ** random.next()) - 1
  const lifeMs = random.next() < 0.04 ? LONG_LIFE_MS : 50 + random.below(350)
  const repents = protocol.goesOn && random.next() < 0.2 // the connection stays, and all further answers are real
  const seen: Buffer[] = []
  const timers: NodeJS.Timeout[] = []
  let isHostile = false
  let isOver = false
  let isSilent = false

  const over = (end: string) => {
    if (isOver) return
    isOver = true
    for (const timer of timers) clearTimeout(timer)
    onOver({ ...session, end })
  }
  const end = () => {
    client.destroy()
    server.destroy()
  }
  const send = (bytes: Buffer) => {
    if (!client.destroyed && bytes.length > 0) client.write(bytes)
  }
  const flood = (left: number) => {
    if (left <= 0 || client.destroyed || isOver) return
    client.write(Buffer.alloc(CHUNK_BYTES, 0x31), () => flood(left - CHUNK_BYTES))
  }
  const later = (ms: number, act: () => void) => timers.push(setTimeout(act, ms))
  const perform = (packet: Buffer, request?: number) => {
    if (session.deeds.length === 0) later(lifeMs, expire)
    const name = random.pick(NAMES)
    session.deeds.push(name)
    for (const bytes of DEEDS[name]?.(packet, { random, protocol, seen, request }) ?? []) send(bytes)
    if (name === 'reset') client.resetAndDestroy()
    else if (name === 'end') client.end(end)
    else if (name === 'endless') flood(ENDLESS_BYTES)
    isSilent ||= name === 'silence' || name === 'endless'
  }
  const expire = () => {
    over(repents ? 'honest again' : 'closed')
    if (!repents) end()
  }
  /** Where nothing comes to be damaged, something comes unasked. */
  const chatter = () => {
    if (!isSilent && !(protocol.goesOn && session.deeds.length > 0))
      perform(random.pick(seen) ?? protocol.strange(random))
  }
  const turn = () => {
    if (isHostile || isOver) return
    isHostile = true
    if (protocol.goesOn) later(UNASKED_MS, chatter)
    else timers.push(setInterval(chatter, CHATTER_MS))
  }
  later(50 + random.below(1000), turn)
  if (honestBytes === 0) turn()

  return {
    /** Whether what the client says no longer reaches the real server: it would count a reading as delivered. */
    get isDeaf() {
      return isHostile && !protocol.goesOn
    },
    hear(packet: Buffer, request: number | undefined) {
      if (!isHostile && session.honestBytes + packet.length > honestBytes) turn()
      if (!isHostile) {
        session.honestBytes += packet.length
        send(packet)
      } else if (protocol.goesOn && !isSilent) {
        if (session.deeds.length === 0 || random.next() < 0.5) perform(packet, request)
        else send(packet)
      }
      if (!isHostile || protocol.goesOn || seen.length === 0) seen.push(packet)
      if (seen.length > SEEN) seen.shift()
    },
    over,
  }
}
