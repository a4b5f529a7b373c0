// Deferred acknowledgement over MQTT.js: the parser goes on to the next message, PUBACKs are sent when asked for.
//
// MQTT.js sends the PUBACK when handleMessage's callback is called without an error; called with one, it reads on and
// sends nothing. That is public but undocumented behaviour: this file is the only one that knows, and the version is
// pinned. The PUBACKs are written here, many at once: MQTT.js would make five pieces of each.
import type { IPublishPacket, MqttClient } from 'mqtt'

const READ_ON = new Error('acknowledged later')
const PUBACK = 0x40
const PUBACK_BYTES = 4 // without a reason code, which means success also in MQTT 5 (3.4.2.1)

/** @param readOn lets the parser go on; until then no further packet is read from the connection */
export type Receive = (packet: IPublishPacket, readOn: () => void) => void

/** Hands every incoming message of `client` to `receive`, unacknowledged. */
export function deferAcknowledgements(client: MqttClient, receive: Receive): void {
  client.handleMessage = (packet, callback) =>
    receive(packet, () => (packet.qos === 0 ? callback() : callback(READ_ON)))
}

/**
 * Sends a PUBACK for each packet id, in this order. Without a connection nothing is sent, nor later: the ids are those
 * of the connection that their messages came by.
 */
export function acknowledge(client: MqttClient, packetIds: number[]): void {
  if (!client.connected || client.disconnecting) return
  const bytes = Buffer.allocUnsafe(PUBACK_BYTES * packetIds.length)
  for (const [index, id] of packetIds.entries()) {
    bytes.writeUInt16BE((PUBACK << 8) | (PUBACK_BYTES - 2), PUBACK_BYTES * index)
    bytes.writeUInt16BE(id, PUBACK_BYTES * index + 2)
  }
  client.stream.write(bytes)
}
