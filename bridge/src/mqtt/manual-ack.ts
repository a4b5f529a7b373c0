// Acknowledging over MQTT.js by hand: the parser goes on to the next message, acknowledgements are sent when asked for.
//
// MQTT.js sends the PUBACK when handleMessage's callback is called without an error; called with one, it reads on and
// sends nothing. And it would send the PUBREC of QoS 2 before anybody has seen the message: so such a message goes
// through it as one of QoS 1, and the PUBREC is sent here, once it is stored. The PUBREL that follows concerns a message
// MQTT.js does not know, which it answers with PUBCOMP. All that is public but undocumented: this file is the only one
// that knows, and the version is pinned. Many acknowledgements are one write: MQTT.js would make five of each.
import type { IPublishPacket, MqttClient } from 'mqtt'
import type { Held } from '../ack-window.js'

const READ_ON = new Error('acknowledged later')
const PUBACK = 0x40
const PUBREC = 0x50
const ACK_BYTES = 4 // without a reason code, which means success also in MQTT 5 (3.4.2.1, 3.5.2.1)

const isQos2 = Symbol('QoS 2')
type Publish = IPublishPacket & { [isQos2]?: true }

/** @param readOn lets the parser go on; until then no further packet is read from the connection */
export type Receive = (packet: IPublishPacket, readOn: () => void) => void

/** Hands every incoming message of `client` to `receive`, unacknowledged. */
export function deferAcknowledgements(client: MqttClient, receive: Receive): void {
  client.handleMessage = (packet, callback) =>
    receive(packet, () => (packet.qos === 0 ? callback() : callback(READ_ON)))
}

/** To be called for each PUBLISH of QoS 2 before MQTT.js handles it. */
export function takeOverQos2(packet: IPublishPacket): void {
  ;(packet as Publish)[isQos2] = true
  packet.qos = 1
}

/** The QoS by which the broker delivered the message. */
export const qosOf = (packet: IPublishPacket): 0 | 1 | 2 => ((packet as Publish)[isQos2] ? 2 : packet.qos)

/** Sends the PUBACK or PUBREC of each message, in this order, on the connection that delivered them. */
export function acknowledge(client: MqttClient, messages: Pick<Held, 'packetId' | 'qos'>[]): void {
  if (messages.length === 0) return
  const bytes = Buffer.allocUnsafe(ACK_BYTES * messages.length)
  let at = 0
  for (const { packetId, qos } of messages) {
    bytes.writeUInt16BE(((qos === 2 ? PUBREC : PUBACK) << 8) | (ACK_BYTES - 2), at)
    bytes.writeUInt16BE(packetId, at + 2)
    at += ACK_BYTES
  }
  client.stream.write(bytes)
}
