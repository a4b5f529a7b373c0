// Brokers that behave in other ways than the one the tests share: Mosquitto with settings of its own, one that refuses
// MQTT 5, one that refuses what it is asked for, and one that says whatever a test tells it to.
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Server as NetServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { claimPort } from '@iot/stack/ports'
import { type Server, startMosquitto } from '@iot/stack/servers'
import { Aedes, type AedesOptions } from 'aedes'
import packets, { type IConnectPacket, type ISubscribePacket, type Packet } from 'mqtt-packet'

const CONNECT = 0x10
const REFUSED = Buffer.from([0x20, 3, 0, 0x84, 0]) // a CONNACK of MQTT 5: unsupported protocol version

export type Running = { port: number; close(): Promise<void> }

async function listen(server: NetServer, sockets: Set<Socket>): Promise<Running> {
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as { port: number }).port,
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** For Mosquitto: takes messages as large as MQTT can carry. */
export const ANY_SIZE = ['max_packet_size 268435455', 'memory_limit 2000000000']

/** Mosquitto as a local process with further lines of configuration. */
export async function startOwnMosquitto(settings: string[] = []): Promise<Server & { dir: string }> {
  const dir = mkdtempSync(join(tmpdir(), 'iot-mosquitto-'))
  const server = await startMosquitto(await claimPort(), dir, settings)
  return Object.assign(server, {
    dir,
    stop: async () => {
      await server.signal('SIGCONT')
      await server.signal('SIGKILL')
      rmSync(dir, { recursive: true, force: true })
    },
  })
}

/** Stands before a broker, and lets clients of MQTT 3.1.1 through only. */
export function refuseMqtt5(target: number): Promise<Running> {
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true }, (client) => {
    client.once('data', (first) => {
      const protocolVersion = first[first.indexOf('MQTT') + 4]
      if (first[0] === CONNECT && protocolVersion === 5) return client.end(REFUSED)
      const upstream = connect({ host: '127.0.0.1', port: target, noDelay: true })
      sockets.add(upstream)
      upstream.on('error', () => client.destroy())
      upstream.once('close', () => client.destroy())
      client.once('close', () => upstream.destroy())
      upstream.write(first)
      client.pipe(upstream).pipe(client)
    })
  })
  return listen(server, sockets)
}

/** Aedes, which speaks MQTT 3.1.1 and lets a test decide what is allowed. */
export async function startAedes(options: AedesOptions): Promise<Running> {
  const broker = await Aedes.createBroker(options)
  const running = await listen(createServer(broker.handle), new Set())
  return {
    port: running.port,
    async close() {
      await new Promise<void>((resolve) => broker.close(resolve))
      await running.close()
    },
  }
}

export type Client = {
  connect: IConnectPacket
  /** How many connections with this client id came before. */
  before: number
  send(packet: Packet): void
  /** Sends bytes as they are; resolves when they are on their way. */
  write(bytes: Buffer): Promise<void>
  end(): void
}

/**
 * A broker of MQTT 5 that accepts connections and grants subscriptions; the rest is the test's.
 * @param onSubscribe is called when a subscription that is not the canary's was granted
 */
export function startScripted(
  onSubscribe: (client: Client) => void,
  onPacket: (client: Client, packet: Packet) => void = () => {},
): Promise<Running> {
  const counts = new Map<string, number>()
  const server = createServer({ noDelay: true }, (socket) => {
    const parser = packets.parser({ protocolVersion: 5 })
    const send = (packet: Packet) => void socket.write(packets.generate(packet, { protocolVersion: 5 }))
    let client: Client | undefined
    parser.on('packet', (packet) => {
      if (packet.cmd === 'connect') {
        const before = counts.get(packet.clientId) ?? 0
        counts.set(packet.clientId, before + 1)
        const write = (bytes: Buffer) => new Promise<void>((resolve) => socket.write(bytes, () => resolve()))
        client = { connect: packet, before, send, write, end: () => socket.end() }
        send({ cmd: 'connack', sessionPresent: false, reasonCode: 0 })
      } else if (packet.cmd === 'pingreq') send({ cmd: 'pingresp' })
      else if (packet.cmd === 'subscribe') {
        send({ cmd: 'suback', messageId: packet.messageId ?? 0, granted: packet.subscriptions.map(({ qos }) => qos) })
        if (client && !isCanary(packet)) onSubscribe(client)
      }
      if (client) onPacket(client, packet)
    })
    socket.on('data', (bytes) => parser.parse(bytes))
  })
  return listen(server, new Set())
}

const isCanary = ({ subscriptions }: ISubscribePacket) => subscriptions.some(({ topic }) => topic.startsWith('canary/'))
