// What a hostile peer sends in the place of a packet.
import type { Protocol } from './protocols.js'
import type { Random } from './random.js'

type Tools = { random: Random; protocol: Protocol; seen: Buffer[]; request: number | undefined }
/** Returns what is sent in the place of a packet. */
type Deed = (packet: Buffer, tools: Tools) => Buffer[]

const cut: Deed = (packet, { random }) => [packet.subarray(0, random.below(packet.length))]

/** Four bytes become a number that no count, length or offset can be. */
const overwritten: Deed = (packet, { random, protocol, request }) => {
  const room = protocol.name === 'mqtt' ? Math.min(packet.length, 12) : packet.length // not a reading's own bytes
  if (room < 4 || !protocol.mayOverwrite(request)) return [packet]
  const changed = Buffer.from(packet)
  changed.writeInt32BE(random.pick([0x7fffffff, -1]), random.below(room - 3))
  return [changed]
}

/** Kafka's answer under the number of another request; elsewhere what is no answer to anything. */
const renumbered: Deed = (packet, { random, protocol }) => {
  if (protocol.name !== 'kafka' || packet.length < 8) return [protocol.strange(random)]
  const changed = Buffer.from(packet)
  changed.writeInt32BE((packet.readInt32BE(4) + random.pick([-1, 1, 1000, 0x7fffffff])) | 0, 4)
  return [changed]
}

const grown: Deed = (packet, { random }) => {
  const at = random.below(packet.length)
  return [packet.subarray(0, at), random.bytes(1 + random.below(100)), packet.subarray(at)]
}

/** `end`, `reset`, `silence` and `endless` are also done to the connection, by whoever sends. */
export const DEEDS: Record<string, Deed> = {
  end: cut,
  reset: cut,
  silence: cut,
  endless: (packet, { random, protocol }) => [protocol.huge(random), packet],
  truncated: cut,
  grown,
  overwritten,
  renumbered,
  garbage: (packet, { random }) => [random.bytes(1 + random.below(5000)), packet],
  twice: (packet) => [packet, packet],
  earlier: (packet, { random, seen }) => [random.pick(seen) ?? packet, packet],
  'left out': () => [],
  strange: (packet, { random, protocol }) => [protocol.strange(random), packet],
  'only strange': (_packet, { random, protocol }) => [protocol.strange(random), protocol.strange(random)],
}
