// What became of each command, from sent to the device's own word; in memory only, the newest ones, bounded in bytes.
import { memberText, withMember } from '@iot/shared/json-text'
import { createSignal, type Signal } from '@iot/shared/signal'
import { z } from 'zod'

const MAX_RECORDS = 10_000
const MAX_REPLY_BYTES = 16_384
const MAX_RESULT_BYTES = 16_000_000 // of all results together, as UTF-8

/** `expired`: its time is over, or an error was returned; no word of the device came. */
export const COMMAND_STATUSES = ['sent', 'acknowledged', 'succeeded', 'failed', 'expired'] as const

/** Times are Unix time in seconds. `result` is the JSON text of what the device said with it. */
export type CommandRecord = {
  command_id: string
  device_id: string
  status: (typeof COMMAND_STATUSES)[number]
  created_at: number
  /** The broker has said that nobody was subscribed (MQTT 5). */
  no_subscribers?: true
  result?: string
  /** There was a result, which made room for newer ones. */
  result_dropped?: true
}

/** A record as JSON; the result goes in as the device wrote it. */
export function recordText({ result, ...record }: CommandRecord): string {
  const text = JSON.stringify(record)
  return result === undefined ? text : withMember(text, 'result', result)
}

const replySchema = z.object({ command_id: z.string(), status: z.enum(['succeeded', 'failed']) })

/** What became of a device's reply: too large to be read, not one that a command waits for, or taken. */
export type ReplyOutcome = 'matched' | 'ignored' | 'too_large'

export type CommandRecords = {
  /** False when there is one of this id already. */
  add(commandId: string, deviceId: string, ttlMs: number): boolean
  get(commandId: string): CommandRecord | undefined
  /** The broker has it. */
  acknowledged(commandId: string, hadSubscribers: boolean): void
  /** An error was returned: it is not delivered any more. What was not even sent is forgotten, its id is free. */
  withdraw(commandId: string, wasSent: boolean): void
  reply(deviceId: string, payload: Buffer): ReplyOutcome
  /** Resolves once the device has replied, or after `timeoutMs`, or at `stop`, with what is known then. */
  settled(commandId: string, timeoutMs: number): Promise<CommandRecord | undefined>
  /** Ends every wait, and those to come. */
  stop(): void
}

type Entry = { record: CommandRecord; deadlineMs: number; resultBytes: number; settled: Signal }

/** @param nowMs a monotonic clock in milliseconds */
export function createCommandRecords(nowMs = () => performance.now()): CommandRecords {
  const entries = new Map<string, Entry>() // oldest first
  const withResult = new Set<Entry>() // oldest first
  let resultBytes = 0
  let stopped = false

  const isOpen = ({ record }: Entry) => record.status === 'sent' || record.status === 'acknowledged'
  const current = (commandId: string) => {
    const entry = entries.get(commandId)
    if (entry && isOpen(entry) && nowMs() > entry.deadlineMs) entry.record.status = 'expired'
    return entry
  }

  const dropResult = (entry: Entry) => {
    if (!withResult.delete(entry)) return
    resultBytes -= entry.resultBytes
    delete entry.record.result
    entry.record.result_dropped = true
  }

  const keepResult = (entry: Entry, text: string) => {
    const bytes = Buffer.from(text)
    entry.record.result = bytes.toString() // a copy, since a part of the reply would keep all of it in memory
    entry.resultBytes = bytes.length
    withResult.add(entry)
    resultBytes += bytes.length
    for (const oldest of withResult) {
      if (resultBytes <= MAX_RESULT_BYTES) break
      dropResult(oldest)
    }
  }

  const forget = (commandId: string) => {
    const entry = entries.get(commandId)
    if (entry) dropResult(entry)
    entries.delete(commandId)
  }

  return {
    add(commandId, deviceId, ttlMs) {
      if (entries.has(commandId)) return false
      const [oldest] = entries.keys()
      if (entries.size >= MAX_RECORDS && oldest !== undefined) forget(oldest)
      const created_at = Math.floor(Date.now() / 1000)
      const record: CommandRecord = { command_id: commandId, device_id: deviceId, status: 'sent', created_at }
      entries.set(commandId, { record, deadlineMs: nowMs() + ttlMs, resultBytes: 0, settled: createSignal() })
      return true
    },
    get: (commandId) => current(commandId)?.record,
    acknowledged(commandId, hadSubscribers) {
      const entry = current(commandId)
      if (entry?.record.status === 'sent') entry.record.status = 'acknowledged'
      if (entry && !hadSubscribers) entry.record.no_subscribers = true
    },
    withdraw(commandId, wasSent) {
      if (!wasSent) return forget(commandId)
      const entry = current(commandId)
      if (entry && isOpen(entry)) entry.record.status = 'expired'
    },
    reply(deviceId, payload) {
      if (payload.length > MAX_REPLY_BYTES) return 'too_large'
      if (entries.size === 0) return 'ignored'
      const text = payload.toString()
      const parsed = replySchema.safeParse(parse(text))
      const entry = parsed.success ? current(parsed.data.command_id) : undefined
      if (!parsed.success || !entry || entry.record.device_id !== deviceId || !isOpen(entry)) return 'ignored'
      entry.record.status = parsed.data.status
      const result = memberText(text, 'result')
      if (result !== undefined) keepResult(entry, result)
      entry.settled.wake()
      return 'matched'
    },
    async settled(commandId, timeoutMs) {
      const entry = current(commandId)
      if (entry && isOpen(entry) && !stopped) await entry.settled.wait(timeoutMs)
      return current(commandId)?.record
    },
    stop() {
      stopped = true
      for (const { settled } of entries.values()) settled.wake()
    },
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
