// A client of MQTT.js for one connection, with the size limit put before its parser. It never connects again by itself,
// and pings are its owner's business: MQTT.js takes a message that arrives slowly for silence.
import mqtt, { type IClientOptions, type IPublishPacket, type MqttClient } from 'mqtt'
import { createSizeLimit } from './size-limit.js'

const KEEPALIVE_S = 15 // what the broker is promised
const CONNECT_TIMEOUT_MS = 10_000
const PASS_BYTES = 16_384 // what a usual reading is below: passed on unread
const MAX_PACKET_BYTES = 4 * 1024 * 1024 // what the broker is told: more than Kafka takes, and a link carries it in time
const PACKET_OVERHEAD_BYTES = 128 * 1024 // a topic and some properties

/** Where the broker is and what it is shown; certificates and keys are PEM text. */
export type Broker = { url: string } & Pick<IClientOptions, 'username' | 'password' | 'ca' | 'cert' | 'key'>

export type ClientOptions = {
  broker: Broker
  clientId: string
  protocolVersion: 4 | 5
  /** A payload is cut to this size before it is buffered. */
  keptBytes: number
  /** A persistent session; without one the session is clean. */
  session?: { expirySeconds: number; receiveMaximum: number } | undefined
}

export type ClientEvents = {
  /** Something arrived, were it a part of a message. */
  onBytes(): void
  /** A message arrived, before MQTT.js handles it. */
  onPublish(packet: IPublishPacket): void
  onConnect(): void
  /** The connection, or the try to make one, has ended: why, and with the reason in the broker's DISCONNECT. */
  onEnd(problem: Error | undefined, reasonCode: number | undefined): void
}

const sentBytes = Symbol('bytes of the payload as it was sent')
type Cut = IPublishPacket & { [sentBytes]?: number }

/** The size of a payload before it was cut. */
export const sentBytesOf = (packet: IPublishPacket): number => (packet as Cut)[sentBytes] ?? packet.payload.length

/** Begins to connect. */
export function openClient(options: ClientOptions, events: ClientEvents): MqttClient {
  const { protocolVersion, keptBytes, session } = options
  const { url, ...credentials } = options.broker
  const properties = {
    maximumPacketSize: Math.max(MAX_PACKET_BYTES, keptBytes + PACKET_OVERHEAD_BYTES),
    ...(session ? { sessionExpiryInterval: session.expirySeconds, receiveMaximum: session.receiveMaximum } : {}),
  }
  const client = mqtt.connect(url, {
    ...credentials,
    clientId: options.clientId,
    protocolVersion,
    clean: !session,
    ...(protocolVersion === 5 ? { properties } : {}),
    keepalive: KEEPALIVE_S,
    timerVariant: { set: () => 0, clear: () => {} }, // for its pings alone
    connectTimeout: CONNECT_TIMEOUT_MS,
    reconnectPeriod: 0,
    resubscribe: false,
    queueQoSZero: false,
    log: () => {}, // its debug lines cost the data path even while nobody reads them
  })
  const restoreSize = limitIncoming(client, options, events.onBytes)
  let problem: Error | undefined
  let reasonCode: number | undefined
  client.on('packetreceive', (packet) => {
    if (packet.cmd !== 'publish') return
    restoreSize(packet)
    events.onPublish(packet)
  })
  client.on('connect', events.onConnect)
  client.on('disconnect', (packet) => {
    reasonCode = packet.reasonCode
  })
  client.on('error', (error) => {
    problem ??= error
    client.stream.destroy() // also where MQTT.js would stay: after what its parser cannot read
  })
  client.on('close', () => events.onEnd(problem, reasonCode))
  return client
}

/** Drops the connection, and hands out nothing more of what was received. */
export function dropClient(client: MqttClient): void {
  for (const event of ['message', 'packetreceive', 'packetsend'] as const) client.removeAllListeners(event)
  client.end(true)
}

/** Returns what is to be called for each PUBLISH, in order, before anybody asks for its size. */
function limitIncoming(
  { stream }: MqttClient,
  { protocolVersion, keptBytes }: ClientOptions,
  onBytes: () => void,
): (packet: IPublishPacket) => void {
  const cut: number[] = [] // the sizes of payloads that were cut, and have not come out of the parser yet
  const limit = createSizeLimit({
    protocolVersion,
    keptBytes,
    passBytes: PASS_BYTES,
    onCut: (bytes) => cut.push(bytes),
    onBroken: (problem) => stream.destroy(new ProtocolError(`the broker sent ${problem}`)),
  })
  const push = stream.push.bind(stream)
  // every source of bytes (TCP, TLS, WebSocket) hands them to its stream by `push`
  stream.push = (chunk: Buffer | null) => {
    if (chunk === null) return push(null)
    onBytes()
    return limit(chunk, push)
  }
  return (packet) => {
    if (packet.payload.length !== keptBytes) return
    const bytes = cut.shift()
    if (bytes === undefined) throw new Error('a payload of the size that others are cut to was not counted')
    ;(packet as Cut)[sentBytes] = bytes
  }
}

class ProtocolError extends Error {
  readonly code = 'MQTT_PROTOCOL' // MQTT.js passes on errors with a code only
}
