// How long to stay away after a connection has ended, and whether another client is behind it. Two clients with one id
// throw each other out for ever; a broker of MQTT 5 says so, others just end the connection, again and again, soon after
// it was made. Pure but for the clock.
import { backoffMs } from '@iot/shared/backoff'

const SESSION_TAKEN_OVER = 0x8e // in a DISCONNECT of MQTT 5
const PAUSE_MS = 1000
const MAX_PAUSE_MS = { known: 15_000, suspected: 5000 }
const STABLE_MS = 10_000
const SHORT_LIVES = 3
const MANY_MESSAGES = 1000 // what a link brings that is only cut now and then

export const TAKEN_OVER = 'another client uses this MQTT_CLIENT_ID: the broker ended our session in its favour'
export const PERHAPS_TAKEN_OVER =
  'the broker ends our connections soon after they are made: does another client use this MQTT_CLIENT_ID?'

export type Reconnects = {
  /** The broker has accepted a connection. */
  connected(): void
  /** Whether the connection has lived long enough to say that nobody throws it out. */
  isStable(): boolean
  /**
   * A connection, or a try to make one, was ended by the other side or the network.
   * @param reasonCode of the broker's DISCONNECT, where it sent one
   * @param messages what the connection brought
   * @returns the pause before the next try, and the suspicion in words
   */
  ended(reasonCode: number | undefined, messages: number): { pauseMs: number; takeover: string | null }
  /** We ended the connection ourselves, since it was of no use. Returns the pause before the next try. */
  gaveUp(): number
}

/** @param nowMs a monotonic clock in milliseconds */
export function createReconnects(nowMs = () => performance.now()): Reconnects {
  let connectedMs: number | null = null
  let failures = 0 // tries in a row that led to no connection
  let shortLives = 0 // connections in a row that were ended soon
  let stableAfterMs = STABLE_MS

  const jittered = (ms: number) => ms * (0.75 + Math.random() / 2) // many bridges do not come back at once

  return {
    connected() {
      connectedMs = nowMs()
      failures = 0
    },
    isStable: () => connectedMs !== null && nowMs() - connectedMs >= stableAfterMs,
    ended(reasonCode, messages) {
      if (connectedMs === null) {
        shortLives = 0
        return { pauseMs: backoffMs(failures++), takeover: null }
      }
      const isKnown = reasonCode === SESSION_TAKEN_OVER
      shortLives = nowMs() - connectedMs < stableAfterMs ? shortLives + 1 : 1
      connectedMs = null
      const mayGrow = isKnown || messages < MANY_MESSAGES
      const limitMs = isKnown ? MAX_PAUSE_MS.known : MAX_PAUSE_MS.suspected
      const pauseMs = mayGrow ? Math.min(PAUSE_MS * 2 ** Math.min(shortLives - 1, 10), limitMs) : PAUSE_MS
      stableAfterMs = STABLE_MS + pauseMs // the other one pauses too
      const takeover = isKnown ? TAKEN_OVER : shortLives >= SHORT_LIVES ? PERHAPS_TAKEN_OVER : null
      return { pauseMs: jittered(pauseMs), takeover }
    },
    gaveUp() {
      connectedMs = null
      shortLives = 0
      return jittered(PAUSE_MS)
    },
  }
}
