// The size limit put in front of MQTT.js: what the socket delivers passes it before the parser's pipe sees it.
import type { IPublishPacket, MqttClient } from 'mqtt'
import { createSizeLimit } from './size-limit.js'

const PASS_BYTES = 16_384 // what a usual reading is below: passed on unread

const sentBytes = Symbol('bytes of the payload as it was sent')
type Cut = IPublishPacket & { [sentBytes]?: number }

/** The size of a payload before it was cut. */
export const sentBytesOf = (packet: IPublishPacket): number => (packet as Cut)[sentBytes] ?? packet.payload.length

/**
 * Watches and limits what `client` receives on the connection that it has just begun.
 * @param onBytes is called for each piece that arrives
 * @returns what is to be called for each PUBLISH, in order, before anybody asks for its size
 */
export function limitIncoming(
  client: MqttClient,
  options: { protocolVersion: 4 | 5; keptBytes: number },
  onBytes: () => void,
): (packet: IPublishPacket) => void {
  const cut: number[] = [] // the sizes of payloads that were cut, and have not come out of the parser yet
  const { stream } = client
  const limit = createSizeLimit({
    ...options,
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
    if (packet.payload.length !== options.keptBytes) return
    const bytes = cut.shift()
    if (bytes === undefined) throw new Error('a payload of the size that others are cut to was not counted')
    ;(packet as Cut)[sentBytes] = bytes
  }
}

class ProtocolError extends Error {
  readonly code = 'MQTT_PROTOCOL' // MQTT.js passes on errors with a code only
}
