// The messages received over one connection and not acknowledged yet. What it promises: a message is acknowledged only
// after it was stored; acknowledgements leave in the order of arrival (MQTT 5, 4.6); a message that the broker delivers
// again after a reconnect is recognised and not stored twice. Pure: no connection, no clock, no timers.

/** What a message costs in memory beside its topic and payload. */
const MESSAGE_BYTES = 200

/** A message that came in. The payload is as it was received; `sentBytes` is its size as the device sent it. */
export type Message = {
  readonly topic: string
  readonly payload: Buffer
  readonly isRetained: boolean
  readonly sentBytes: number
}

/**
 * A message in the window. `packetId` is 0 where the broker expects no acknowledgement (QoS 0); `isUnacknowledged` says
 * whether it stands in the order of the current connection.
 */
export type Held = Message & {
  packetId: number
  readonly qos: 0 | 1 | 2
  isStored: boolean
  isUnacknowledged: boolean
}

export type AckWindow = {
  /** Messages that are neither stored nor given up: what the bridge still owes. */
  readonly unstored: number
  /** Messages that are kept, and the memory they take: those not stored, and those stored behind one that is not. */
  readonly messages: number
  readonly bytes: number
  /** Whether nothing more should be read until something is acknowledged. */
  readonly isFull: boolean
  /** Puts a new message at the end of the window. */
  add(message: Held): void
  /**
   * Recognises a message that was held when the previous connection was lost, and puts it at the end of the window.
   * Returns null for all others: they are new, whatever their DUP flag says.
   */
  reclaim(packetId: number, isDup: boolean, topic: string, payload: Buffer): Held | null
  /** Marks a message as stored; to be called once for each that was added. */
  stored(message: Held): void
  /** Takes from the head what can be acknowledged now, in order. */
  takeAcknowledgeable(): Held[]
  /** The connection is lost: nothing it brought may be acknowledged until the broker has delivered it again. */
  disconnected(): void
  /** The broker has no session for us: it will not deliver again what was held. */
  forget(): void
}

const bytesOf = (message: Message) => message.topic.length + message.payload.length + MESSAGE_BYTES

/** @param limits past either of them the window is full */
export function createAckWindow(limits: { messages: number; bytes: number }): AckWindow {
  let inOrder: Held[] = [] // of this connection; those before `acknowledged` are done, and cut off many at a time
  let acknowledged = 0
  let unclaimed = new Map<number, Held>() // of previous connections, by packet id
  let unstored = 0
  let messages = 0
  let bytes = 0

  const count = (message: Message) => {
    messages++
    bytes += bytesOf(message)
  }
  const uncount = (message: Message) => {
    messages--
    bytes -= bytesOf(message)
  }
  const append = (message: Held) => {
    if (message.qos === 0) return
    if (message.packetId === 0) throw new Error('a message of QoS 1 or 2 without a packet id cannot be acknowledged')
    message.isUnacknowledged = true
    inOrder.push(message)
  }

  return {
    get unstored() {
      return unstored
    },
    get messages() {
      return messages
    },
    get bytes() {
      return bytes
    },
    get isFull() {
      return messages >= limits.messages || bytes >= limits.bytes
    },
    add(message) {
      append(message)
      unstored++
      count(message)
    },
    reclaim(packetId, isDup, topic, payload) {
      if (unclaimed.size === 0) return null
      if (!isDup) {
        unclaimed.clear() // redelivered messages precede new ones (MQTT 5, 4.4 and 4.6)
        return null
      }
      const known = unclaimed.get(packetId)
      if (!known) return null
      unclaimed.delete(packetId)
      if (known.topic !== topic || !known.payload.equals(payload)) return null
      if (known.isStored) count(known)
      append(known)
      return known
    },
    stored(message) {
      if (message.isStored) throw new Error(`message ${message.packetId} was stored twice`)
      message.isStored = true
      unstored--
      if (!message.isUnacknowledged) uncount(message)
    },
    takeAcknowledgeable() {
      const first = acknowledged
      while (inOrder[acknowledged]?.isStored) acknowledged++
      const taken = inOrder.slice(first, acknowledged)
      for (const message of taken) {
        message.isUnacknowledged = false
        uncount(message)
      }
      if (2 * acknowledged >= inOrder.length) {
        inOrder = inOrder.slice(acknowledged)
        acknowledged = 0
      }
      return taken
    },
    disconnected() {
      for (const message of inOrder.slice(acknowledged)) {
        message.isUnacknowledged = false
        if (message.isStored) uncount(message) // kept only to be recognised
        unclaimed.set(message.packetId, message)
      }
      inOrder = []
      acknowledged = 0
    },
    forget() {
      unclaimed = new Map()
    },
  }
}
