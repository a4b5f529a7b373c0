// What a client of the feed is told beside updates: whether Kafka is there, who comes and goes, the flow. Of all of it the
// newest is what counts: it is looked up when the client takes something, and carries no id.
import type { Presence } from '../presence.js'
import { eventBytes, type Format } from './frames.js'

const REMEMBERED = 10_000 // devices that came or went; who is further behind must ask for all

export type Wishes = {
  format: Format
  matches(deviceId: string): boolean
  /** Those that the client names; undefined where it wants all that match. */
  devices: readonly string[] | undefined
  presence: boolean
  flow: boolean
}

export type ExtrasParts = {
  presence: Pick<Presence, 'current' | 'onChange'>
  /** The newest flow as JSON, another text whenever it is another; null before the first. */
  flow: () => string | null
  /** What keeps the topic from being read. */
  kafka: () => string | null
  onNews(): void
}

export type Extras = {
  /** Returns a function that makes the events that a client has not been told yet. */
  begin(wishes: Wishes): () => Buffer[]
  stop(): void
}

export function createExtras({ presence, flow, kafka, onNews }: ExtrasParts): Extras {
  let changed: string[] = []
  let base = 0 // the number of the oldest change
  const stop = presence.onChange((deviceId) => {
    changed.push(deviceId)
    if (changed.length >= 2 * REMEMBERED) {
      base += REMEMBERED
      changed = changed.slice(REMEMBERED)
    }
    onNews()
  })

  const begin = ({ format, matches, devices, presence: wantsPresence, flow: wantsFlow }: Wishes) => {
    let at = base + changed.length
    let toTell: Iterable<string> = devices ?? []
    let away = false
    let shown: string | null = null

    const presenceEvents = (): Buffer[] => {
      const isBehind = at < base
      const ids = isBehind ? (devices ?? []) : [...toTell, ...changed.slice(at - base).filter(matches)]
      at = base + changed.length
      toTell = []
      const tell = (deviceId: string) =>
        eventBytes(format, 'presence', JSON.stringify({ device_id: deviceId, online: presence.current(deviceId) }))
      const told = [...new Set(ids)].map(tell)
      return isBehind && devices === undefined
        ? [eventBytes(format, 'status', '{"presence":"incomplete"}'), ...told]
        : told
    }

    return () => {
      const found: Buffer[] = []
      if ((kafka() !== null) !== away) {
        away = !away
        found.push(eventBytes(format, 'status', `{"kafka":"${away ? 'away' : 'back'}"}`))
      }
      if (wantsPresence) found.push(...presenceEvents())
      const newest = wantsFlow ? flow() : null
      if (newest !== null && newest !== shown) found.push(eventBytes(format, 'flow', newest))
      shown = newest
      return found
    }
  }
  return { begin, stop }
}
