// Whether a connection still brings anything. A broker that is frozen, or cut off, is found by its silence, since it
// leaves PINGREQs unanswered; one that answers pings and delivers nothing by the canary, a message to a topic of the
// connection's own that must come back. Time is counted in looks, so that a process that was itself held up does not
// take its own pause for the broker's. Pure: `look` is to be called every LOOK_MS.

export const LOOK_MS = 500
const PING_LOOKS = 10 // 5 s
const SILENT_LOOKS = 20 // 10 s: two pings, and any byte counts as an answer
const AT_ONCE_LOOKS = 4 // 2 s
const STRIKES = 2

export type PulseProblem = 'silent' | 'mute'

export type Pulse = {
  /** From now on the canary can come back. */
  canarySubscribed(): void
  /** Bytes arrived, of whatever kind. */
  onBytes(): void
  /** A message arrived; the canary is one too. */
  onMessage(isCanary: boolean): void
  /**
   * Looks at the connection, and says what is to be sent and what is wrong.
   * @param isHeld whether we do not read at present, so that silence means nothing
   */
  look(isHeld: boolean): { ping: boolean; canary: boolean; problem: PulseProblem | null }
  /** The connection has ended. @param byBroker whether the other side ended it */
  ended(byBroker: boolean): void
  /** The broker refuses the canary: it is sent no more. */
  canaryRefused(): void
  /** Why the canary is off, once; later null. */
  takeCanaryOff(): string | null
  readonly isCanaryOn: boolean
}

/** @param stallMs how long no message may arrive, the canary included; 0: no canary */
export function createPulse(stallMs: number): Pulse {
  const stallLooks = Math.max(Math.round(stallMs / LOOK_MS), 2)
  const canaryLooks = Math.max(Math.floor(stallLooks / 3), 1)
  let isCanaryOn = stallMs > 0
  let hasCanaryWorked = false
  let offBecause: string | null = null
  let strikes = 0 // connections in a row that the broker ended at once when the canary was sent
  // of the connection under way:
  let isCanarySubscribed = false
  let looks = 0
  let silentLooks = 0
  let quietLooks = 0
  let canarySentLooks: number | null = null // ago, while none has come back

  const switchOff = (because: string) => {
    if (!isCanaryOn) return
    isCanaryOn = false
    offBecause = because
  }

  return {
    canarySubscribed() {
      isCanarySubscribed = true
      quietLooks = stallLooks // the first canary flies at once: whether it works is known early
    },
    onBytes() {
      silentLooks = 0
    },
    onMessage(isCanary) {
      quietLooks = 0
      if (!isCanary) return
      canarySentLooks = null
      hasCanaryWorked = true
      strikes = 0
    },
    look(isHeld) {
      looks++
      if (isHeld) {
        silentLooks = 0
        quietLooks = 0
        canarySentLooks = null
        return { ping: looks % PING_LOOKS === 0, canary: false, problem: null }
      }
      silentLooks++
      quietLooks++
      const ping = looks % PING_LOOKS === 0
      if (silentLooks >= SILENT_LOOKS) return { ping, canary: false, problem: 'silent' }
      if (!isCanaryOn || !isCanarySubscribed) return { ping, canary: false, problem: null }
      if (canarySentLooks === null) {
        const canary = quietLooks >= canaryLooks
        if (canary) canarySentLooks = 0
        return { ping, canary, problem: null }
      }
      canarySentLooks++
      const isLost = canarySentLooks >= stallLooks - canaryLooks && quietLooks >= stallLooks
      if (isLost && !hasCanaryWorked) switchOff('it does not come back')
      return { ping, canary: canarySentLooks % canaryLooks === 0, problem: isLost && hasCanaryWorked ? 'mute' : null }
    },
    ended(byBroker) {
      if (byBroker && canarySentLooks !== null && canarySentLooks <= AT_ONCE_LOOKS) strikes++
      if (strikes >= (hasCanaryWorked ? STRIKES : 1)) switchOff('the broker ends the connection when it is sent')
      isCanarySubscribed = false
      looks = 0
      silentLooks = 0
      canarySentLooks = null
    },
    canaryRefused() {
      switchOff('the broker refuses its subscription')
    },
    takeCanaryOff() {
      const because = offBecause
      offBecause = null
      return because
    },
    get isCanaryOn() {
      return isCanaryOn
    },
  }
}
