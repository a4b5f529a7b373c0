// Counts what became of every reading of a fleet, from what was sent and what was found in Kafka and Redis. Pure.

/** Per device: when the PUBACK of each sequence number came (Unix ms); undefined where none came. */
export type Sent = Map<string, (number | undefined)[]>

export type FoundRecord = { partition: number; text: string }
export type Found = {
  /** Per key, in Kafka's order. */
  records: Map<string, FoundRecord[]>
  /** Per device, the members of its history. */
  histories: Map<string, string[]>
  lastStates: Map<string, { payload?: string; timestamp?: string }>
  deadLetters: number
}

/** A span of time, Unix ms, in which the broker lost what it had acknowledged. */
export type Span = { fromMs: number; toMs: number }

export type Counts = {
  sent: number
  in_kafka: number
  missing: number
  lost_by_broker: number
  out_of_order: number
  repeated: number
  foreign: number
  missing_in_history: number
  wrong_last_state: number
}

/** What a device of the fleet says; nothing else with its name is its own. */
export const payloadOf = (device: string, seq: number): string => `{"seq":${seq},"device":"${device}"}`

const READING = /^\{"device_id":"([^"]+)","payload":(\{"seq":(\d+),"device":"[^"]+"\}),"timestamp":(\d+)\}$/

/** @param forgiven readings acknowledged then and missing are the broker's loss */
export function check(sent: Sent, found: Found, forgiven: Span[] = []): Counts {
  const counts: Counts = {
    sent: 0,
    in_kafka: 0,
    missing: 0,
    lost_by_broker: 0,
    out_of_order: 0,
    repeated: 0,
    foreign: found.deadLetters,
    missing_in_history: 0,
    wrong_last_state: 0,
  }
  for (const [device, records] of found.records) {
    counts.in_kafka += records.length
    if (!sent.has(device)) counts.foreign += records.length
  }
  for (const [device, acknowledgedAtMs] of sent) checkDevice(device, acknowledgedAtMs, found, forgiven, counts)
  return counts
}

function checkDevice(
  device: string,
  acknowledgedAtMs: (number | undefined)[],
  found: Found,
  forgiven: Span[],
  counts: Counts,
) {
  const seen = new Set<number>()
  const texts = new Set<string>()
  let highest = -1
  let last: { payload: string; timestamp: string; seq: number } | undefined
  let partition: number | undefined
  for (const record of found.records.get(device) ?? []) {
    const [, id, payload = '', digits, timestamp = ''] = READING.exec(record.text) ?? []
    const seq = Number(digits)
    if (id !== device || payload !== payloadOf(device, seq) || seq >= acknowledgedAtMs.length) {
      counts.foreign++
      continue
    }
    partition ??= record.partition
    if (seen.has(seq)) counts.repeated++
    else if (seq < highest || record.partition !== partition) counts.out_of_order++
    seen.add(seq)
    texts.add(record.text)
    highest = Math.max(highest, seq)
    last = { payload, timestamp, seq }
  }
  for (const [seq, atMs] of acknowledgedAtMs.entries()) {
    if (atMs === undefined) continue
    counts.sent++
    if (seen.has(seq)) continue
    if (forgiven.some(({ fromMs, toMs }) => atMs >= fromMs && atMs <= toMs)) counts.lost_by_broker++
    else counts.missing++
  }
  const history = new Set(found.histories.get(device))
  for (const text of texts) if (!history.has(text)) counts.missing_in_history++
  for (const text of history) if (!texts.has(text)) counts.foreign++
  const state = found.lastStates.get(device) ?? {}
  const isRight = last
    ? last.seq === highest && state.payload === last.payload && state.timestamp === last.timestamp
    : state.payload === undefined
  if (!isRight) counts.wrong_last_state++
}
