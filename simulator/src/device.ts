// One simulated device: readings that drift like a real sensor's, and the commands it obeys. Pure.

export type Device = {
  readonly id: string
  running: boolean
  intervalMs: number
  /** The next reading, as JSON text. */
  reading(): string
  /** Obeys a command's JSON text; answers whether it understood. */
  obey(text: string): boolean
}

/** A duration such as `500ms`, `1s` or `2m`, in milliseconds; null when it is none. */
export function parseDuration(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)$/.exec(text)
  if (!match) return null
  const ms = Number(match[1]) * { ms: 1, s: 1000, m: 60_000 }[match[2] as 'ms' | 's' | 'm']
  return ms >= 1 ? ms : null
}

/** @param random a source of numbers from 0 to 1 */
export function createDevice(id: string, intervalMs: number, random = Math.random): Device {
  let temperature = 18 + random() * 8
  let humidity = 40 + random() * 20
  let battery = 80 + random() * 20
  let seq = 0
  const drift = (value: number, step: number, min: number, max: number) =>
    Math.min(Math.max(value + (random() - 0.5) * step, min), max)
  const device: Device = {
    id,
    running: true,
    intervalMs,
    reading() {
      temperature = drift(temperature, 0.4, -10, 45)
      humidity = drift(humidity, 1, 5, 95)
      battery = Math.max(battery - 0.001, 0)
      const round = (value: number) => Math.round(value * 100) / 100
      return JSON.stringify({
        temperature: round(temperature),
        humidity: round(humidity),
        battery: round(battery),
        rssi: Math.round(-70 + (random() - 0.5) * 20),
        seq: seq++,
      })
    },
    obey(text) {
      const command = parse(text)
      if (command?.command === 'start' || command?.command === 'stop') {
        device.running = command.command === 'start'
        return true
      }
      const ms = command?.command === 'set_interval' ? parseDuration(String(command.interval)) : null
      if (ms === null) return false
      device.intervalMs = ms
      return true
    },
  }
  return device
}

/** The device's word on a command, for `commands/ack`; null for a command without a `command_id`. */
export function replyTo(text: string, understood: boolean): string | null {
  const command = parse(text)
  if (typeof command?.command_id !== 'string') return null
  const { command_id } = command
  return JSON.stringify(
    understood
      ? { command_id, status: 'succeeded', result: { command: command.command } }
      : { command_id, status: 'failed', result: { error: 'not understood' } },
  )
}

function parse(text: string): { command?: unknown; command_id?: unknown; interval?: unknown } | null {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' ? value : null
  } catch {
    return null
  }
}
