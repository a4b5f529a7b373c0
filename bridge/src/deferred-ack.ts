// Deferred acknowledgement over MQTT.js: the parser goes on to the next message, the PUBACK is sent when asked for.
//
// MQTT.js sends the PUBACK when handleMessage's callback is called without an error; called with one, it reads on and
// sends nothing, and calling it again later without an error sends it. That is public but undocumented behaviour:
// this file is the only one that knows, and the version is pinned.
import type { IPublishPacket, MqttClient } from 'mqtt'

const READ_ON = new Error('acknowledged later')

export type Delivery = {
  packet: IPublishPacket
  /** Sends the PUBACK, on the connection that the message came by. */
  acknowledge: () => void
  /** Lets the parser go on; until then no further packet is read from the connection. */
  readOn: () => void
}

/** Hands every incoming message of `client` to `receive`, which must call `readOn` once. */
export function deferAcknowledgements(client: MqttClient, receive: (delivery: Delivery) => void): void {
  client.handleMessage = (packet, callback) =>
    receive({
      packet,
      acknowledge: () => callback(),
      readOn: () => (packet.qos === 0 ? callback() : callback(READ_ON)),
    })
}
