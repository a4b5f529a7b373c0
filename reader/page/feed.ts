// The page's one stream: opened by fetch with the key, resumed behind the last id it was given, closed while nobody looks.
import { type Api, CallError } from './api'
import { createEventReader, type FeedEvent, olderOf } from './wire'

const SILENCE_MS = 35_000 // heartbeats come every 15 s
const HIDDEN_MS = 30_000 // or as soon as another tab opens its own: a browser has six connections to a server
const RETRIES_MS = [500, 1000, 2000, 4000, 5000]
const BUSY_MS = 5000

/** `busy`: the server has too many streams. `since` and `retryAt` are of `Date.now()`. */
export type Link = { state: 'connecting' | 'live' | 'lost' | 'busy' | 'resting'; since: number; retryAt: number }

export type Feed = {
  /** From now on these devices, behind `position`; an empty one leaves the place as it is. */
  follow(query: string, position: string): void
  tryNow(): void
  stop(): void
}

type Options = {
  api: Api
  onEvent: (event: FeedEvent) => void
  onLink: (link: Link) => void
  /** The place is none of the server's any more: what is shown must be fetched anew. */
  onPlaceLost: () => void
}

export function createFeed({ api, onEvent, onLink, onPlaceLost }: Options): Feed {
  let query: string | undefined
  let place = ''
  let current: AbortController | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  let hiddenTimer: ReturnType<typeof setTimeout> | undefined
  let link: Link = { state: 'connecting', since: Date.now(), retryAt: 0 }
  let failures = 0
  const tabs = new BroadcastChannel('iot-tabs')

  const say = (state: Link['state'], retryAt = 0) => {
    link = { state, since: link.state === state ? link.since : Date.now(), retryAt }
    onLink(link)
  }
  const close = () => {
    clearTimeout(timer)
    current?.abort()
    current = undefined
  }

  async function read(own: AbortController): Promise<void> {
    const after = place === '' ? '' : `&after=${encodeURIComponent(place)}`
    const { body } = await api.call(`/live?${query}${after}`, {
      headers: { accept: 'text/event-stream' },
      signal: own.signal,
    })
    if (!body) throw new CallError(0, 'UNREACHABLE', 'The server sends nothing')
    const reader = body.pipeThrough(new TextDecoderStream()).getReader()
    const take = createEventReader((event) => {
      if (event.id !== '') place = event.id
      onEvent(event)
    })
    for (;;) {
      const silence = setTimeout(() => own.abort(), SILENCE_MS)
      const { done, value } = await reader.read().finally(() => clearTimeout(silence))
      if (done) return
      if (own !== current) return
      failures = 0
      if (link.state !== 'live') say('live')
      take(value)
    }
  }

  async function connect(): Promise<void> {
    close()
    if (query === undefined) return
    const own = new AbortController()
    current = own
    tabs.postMessage('opens')
    if (link.state !== 'live') say(link.state === 'resting' ? 'connecting' : link.state)
    const error = await read(own).catch((reason: unknown) => reason)
    if (own !== current) return
    retryAfter(error)
  }

  function retryAfter(error: unknown): void {
    const { status, code } = error instanceof CallError ? error : { status: 0, code: '' }
    if (status === 401) return // whoever gives another key begins anew
    if (code === 'INVALID_POSITION') {
      place = ''
      onPlaceLost()
    }
    const isBusy = code === 'TOO_MANY_STREAMS'
    const delay = isBusy ? BUSY_MS : (RETRIES_MS[Math.min(failures++, RETRIES_MS.length - 1)] as number)
    const inMs = delay * (0.8 + 0.4 * Math.random())
    say(isBusy ? 'busy' : 'lost', Date.now() + inMs)
    timer = setTimeout(connect, inMs)
  }

  const rest = () => {
    if (!document.hidden || query === undefined) return
    close()
    say('resting')
  }
  tabs.onmessage = rest
  document.addEventListener('visibilitychange', () => {
    clearTimeout(hiddenTimer)
    if (document.hidden) {
      hiddenTimer = setTimeout(rest, HIDDEN_MS)
    } else if (link.state === 'resting') void connect()
  })

  return {
    follow(wanted, position) {
      if (query === wanted && position === '') return
      query = wanted
      place = olderOf(place, position)
      if (link.state !== 'resting') void connect()
    },
    tryNow: () => void connect(),
    stop() {
      query = undefined
      place = ''
      close()
    },
  }
}
