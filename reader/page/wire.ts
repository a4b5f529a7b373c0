// What comes over the wire, kept as text: the feed's events and positions, the states of devices. Pure.
import { createFieldReader, elementTexts } from '@iot/shared/json-text'
import { decodePosition, encodeVector, type RecordPosition } from '@iot/shared/positions'

export type FeedEvent = { event: string; data: string; id: string }

/**
 * Reads server-sent events (WHATWG HTML, 9.2.6) from text that is cut anywhere. A block without data is given as well: it
 * moves the id. What is not complete is never given.
 */
export function createEventReader(onEvent: (event: FeedEvent) => void): (text: string) => void {
  let rest = ''
  let block = { event: '', data: [] as string[], id: '', isEmpty: true }
  const takeLine = (line: string) => {
    if (line === '') {
      const { event, data, id, isEmpty } = block
      block = { event: '', data: [], id, isEmpty: true }
      if (!isEmpty) onEvent({ event, data: data.join('\n'), id })
      return
    }
    const colon = line.indexOf(':')
    const name = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)
    if (name === 'data') block.data.push(value)
    else if (name === 'event') block.event = value
    else if (name === 'id' && !value.includes('\0')) block.id = value
    else return
    block.isEmpty = false
  }
  return (text) => {
    const all = rest + text
    const end = all.endsWith('\r') ? all.length - 1 : all.length // a line feed may follow
    const lines = all.slice(0, end).split(/\r\n?|\n/)
    rest = (lines.pop() ?? '') + all.slice(end)
    for (const line of lines) takeLine(line)
  }
}

/**
 * The older of two positions of the feed, partition by partition: nothing that either has still to come is missed behind
 * it. A partition that one of them does not know begins at its beginning. Of topics of one name the second's is the one.
 */
export function olderOf(a: string, b: string): string {
  const [one, other] = [decodePosition(a)?.vector, decodePosition(b)?.vector]
  if (!one || !other || one.topic !== other.topic) return other ? b : a
  const both = [...one.next].flatMap(([partition, offset]): [number, number][] => {
    const offsetThere = other.next.get(partition)
    return offsetThere === undefined ? [] : [[partition, Math.min(offset, offsetThere)]]
  })
  return encodeVector({ topic: one.topic, next: new Map(both) })
}

/** `payload` is the JSON text that the device wrote; `timestamp` is Unix time in seconds, 0 before the first reading. */
export type Reading = { id: string; payload: string; timestamp: number; position: RecordPosition | null }
/** `online` is null where nobody knows. */
export type DeviceState = Reading & { online: boolean | null; isReadable: boolean }

const partsOf = createFieldReader(['device_id', 'payload', 'timestamp', 'position', 'online', 'error'])

/** A state, or an update with the id of its event. */
export function stateOf(text: string, eventId = ''): DeviceState {
  const [id = '""', payload = 'null', timestamp = '0', position = 'null', online = 'null', error] = partsOf(text)
  return {
    id: JSON.parse(id) as string,
    payload,
    timestamp: Number(timestamp) || 0,
    position: decodePosition(eventId || (JSON.parse(position) as string | null) || '')?.record ?? null,
    online: online === 'null' ? null : online === 'true',
    isReadable: error === undefined,
  }
}

/** `isWhole` is false while the server still looks for devices. */
export type StatesPage = { total: number; isWhole: boolean; matched: number; position: string; devices: DeviceState[] }
const pageParts = createFieldReader(['total', 'total_is_exact', 'matched', 'position', 'devices'])

export function statesPageOf(text: string): StatesPage {
  const [total = '0', isExact, matched = '0', position = '""', devices = '[]'] = pageParts(text)
  return {
    total: Number(total),
    isWhole: isExact !== 'false',
    matched: Number(matched),
    position: (JSON.parse(position) as string | null) ?? '',
    devices: elementTexts(devices).map((element) => stateOf(element)),
  }
}

/** A state after a reading; the same one where the reading is not newer. */
export function afterReading(state: DeviceState | undefined, reading: DeviceState): DeviceState {
  if (!state) return reading
  const [had, has] = [state.position, reading.position]
  const isSeen = had && has ? had.partition === has.partition && has.offset <= had.offset : false
  return isSeen ? state : { ...reading, online: state.online }
}
