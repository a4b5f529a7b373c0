// What became of each command, from sent to the device's own word; in memory only, the newest ones.
import { z } from 'zod'

const MAX_RECORDS = 10_000

/** `expired`: its time is over, or an error was answered; no word of the device came. */
export const COMMAND_STATUSES = ['sent', 'acknowledged', 'succeeded', 'failed', 'expired'] as const

/** Times are Unix time in seconds. `result` is what the device said with it. */
export type CommandRecord = {
  command_id: string
  device_id: string
  status: (typeof COMMAND_STATUSES)[number]
  created_at: number
  result?: unknown
}

const replySchema = z.object({
  command_id: z.string(),
  status: z.enum(['succeeded', 'failed']),
  result: z.unknown().optional(),
})

export type CommandRecords = {
  /** False when there is one of this id already. */
  add(commandId: string, deviceId: string, ttlMs: number): boolean
  get(commandId: string): CommandRecord | undefined
  /** The broker has it. */
  acknowledged(commandId: string): void
  /** An error was answered: it is not delivered any more. */
  withdraw(commandId: string): void
  /** Takes a device's reply; false when it is no reply to a command of this device that waits for one. */
  reply(deviceId: string, payload: Buffer): boolean
  /** Answers once the device has replied, or after `timeoutMs` with what is known then. */
  settled(commandId: string, timeoutMs: number): Promise<CommandRecord | undefined>
}

type Entry = { record: CommandRecord; deadlineMs: number; wake: (() => void)[] }

/** @param nowMs a monotonic clock in milliseconds */
export function createCommandRecords(nowMs = () => performance.now()): CommandRecords {
  const entries = new Map<string, Entry>() // oldest first

  const isOpen = ({ record }: Entry) => record.status === 'sent' || record.status === 'acknowledged'
  const current = (commandId: string) => {
    const entry = entries.get(commandId)
    if (entry && isOpen(entry) && nowMs() > entry.deadlineMs) entry.record.status = 'expired'
    return entry
  }

  return {
    add(commandId, deviceId, ttlMs) {
      if (entries.has(commandId)) return false
      const [oldest] = entries.keys()
      if (entries.size >= MAX_RECORDS && oldest !== undefined) entries.delete(oldest)
      const created_at = Math.floor(Date.now() / 1000)
      const record: CommandRecord = { command_id: commandId, device_id: deviceId, status: 'sent', created_at }
      entries.set(commandId, { record, deadlineMs: nowMs() + ttlMs, wake: [] })
      return true
    },
    get: (commandId) => current(commandId)?.record,
    acknowledged(commandId) {
      const entry = current(commandId)
      if (entry?.record.status === 'sent') entry.record.status = 'acknowledged'
    },
    withdraw(commandId) {
      const entry = current(commandId)
      if (entry && isOpen(entry)) entry.record.status = 'expired'
    },
    reply(deviceId, payload) {
      const parsed = replySchema.safeParse(parse(payload))
      const entry = parsed.success ? current(parsed.data.command_id) : undefined
      if (!parsed.success || !entry || entry.record.device_id !== deviceId || !isOpen(entry)) return false
      entry.record.status = parsed.data.status
      if (parsed.data.result !== undefined) entry.record.result = parsed.data.result
      for (const wake of entry.wake.splice(0)) wake()
      return true
    },
    async settled(commandId, timeoutMs) {
      const entry = current(commandId)
      if (entry && isOpen(entry)) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, timeoutMs)
          entry.wake.push(() => {
            clearTimeout(timer)
            resolve()
          })
        })
      }
      return current(commandId)?.record
    },
  }
}

function parse(payload: Buffer): unknown {
  try {
    return JSON.parse(payload.toString())
  } catch {
    return undefined
  }
}
