// A client of the live feed, written from the standard: bytes in, events out, each when it is whole.
import { request } from 'node:http'

export type LiveEvent = { id?: string; event: string; data: unknown; text: string }

export type LiveClient = {
  readonly events: LiveEvent[]
  /** As a browser keeps it: of the last event or heartbeat that came whole. */
  readonly lastId: string
  readonly bytes: number
  /** Resolves with how it ended: at its end, or broken off. */
  readonly ended: Promise<'end' | 'cut'>
  updates(): LiveEvent[]
  cut(): void
  /** Takes nothing more, or goes on. */
  pause(): void
  resume(): void
}

export type ListenOptions = {
  lastId?: string
  headers?: Record<string, string>
  /** Cuts the connection after so many bytes, in the middle of whatever it is. */
  cutAfter?: number
  onEvent?: (event: LiveEvent) => void
}

/** Opens a stream. @throws where the answer is another one, with its body */
export function listen(url: string, options: ListenOptions = {}): Promise<LiveClient> {
  const { lastId = '', headers = {}, cutAfter = Number.POSITIVE_INFINITY, onEvent } = options
  const events: LiveEvent[] = []
  let id = lastId
  let bytes = 0
  let rest = Buffer.alloc(0)

  const take = (block: string) => {
    const fields: Record<string, string> = {}
    for (const line of block.split('\n')) {
      const [, name = '', value = ''] = /^([^:]*): ?(.*)$/s.exec(line) ?? []
      fields[name] = value
    }
    if (fields.id !== undefined) id = fields.id
    if (fields.data === undefined) return
    const event = { event: fields.event ?? 'message', data: JSON.parse(fields.data), text: fields.data }
    events.push(fields.id === undefined ? event : { ...event, id: fields.id })
    onEvent?.(events.at(-1) as LiveEvent)
  }

  return new Promise((resolve, reject) => {
    const call = request(
      url,
      { agent: false, headers: { ...(lastId && { 'last-event-id': lastId }), ...headers } },
      (response) => {
        if (response.statusCode !== 200) {
          const chunks: Buffer[] = []
          response.on('data', (chunk) => chunks.push(chunk))
          response.on('end', () => reject(new Error(`${response.statusCode} ${Buffer.concat(chunks)}`)))
          return
        }
        const ended = new Promise<'end' | 'cut'>((done) => {
          response
            .on('end', () => done('end'))
            .on('error', () => done('cut'))
            .on('close', () => done('cut'))
        })
        response.on('data', (chunk: Buffer) => {
          const taken = chunk.subarray(0, Math.max(cutAfter - bytes, 0))
          bytes += taken.length
          rest = Buffer.concat([rest, taken])
          for (let end = rest.indexOf('\n\n'); end >= 0; end = rest.indexOf('\n\n')) {
            take(rest.subarray(0, end).toString())
            rest = rest.subarray(end + 2)
          }
          if (bytes >= cutAfter) call.destroy()
        })
        resolve({
          events,
          get lastId() {
            return id
          },
          get bytes() {
            return bytes
          },
          ended,
          updates: () => events.filter(({ event }) => event === 'update'),
          cut: () => void call.destroy(),
          pause: () => void response.pause(),
          resume: () => void response.resume(),
        })
      },
    )
    call.on('error', reject)
    call.end()
  })
}
