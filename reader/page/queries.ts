// What the page asks for and where it is, as texts: queries of lists and of the feed, places as links. Pure.

const SILENT_FOR = '10m'
export const SILENT_SECONDS = 600
const QUERY_CHARS = 10_000 // a request's head may have 16 KB
const FOLLOWED = 100

export type Mode = 'all' | 'online' | 'silent'
export type Filter = { text: string; mode: Mode }
export type Route = { view: 'devices' | 'flow' | 'letters'; device: string | null }

/** The parameters of a filtered list, or of its export. */
export function listQuery({ text, mode }: Filter): string {
  const query = new URLSearchParams()
  if (text !== '') query.set('contains', text)
  if (mode === 'online') query.set('online', 'true')
  if (mode === 'silent') query.set('silent_for', SILENT_FOR)
  return query.toString()
}

/** The feed of these devices; as many as a request can name. */
export function feedQuery(ids: readonly string[], isEach: boolean, hasFlow: boolean): string {
  const query = ['presence=true', ...(hasFlow ? ['flow=true'] : []), ...(isEach ? [] : ['every=500ms'])]
  let chars = 0
  for (const id of ids.slice(0, FOLLOWED)) {
    const part = `device=${encodeURIComponent(id)}`
    chars += part.length
    if (chars > QUERY_CHARS) break
    query.push(part)
  }
  if (ids.length === 0) query.push('device=-') // nobody in sight: presence and flow alone
  return query.join('&')
}

export function routeOf(hash: string): Route {
  const [, view = '', device = ''] = /^#\/(\w*)\/?(.*)$/.exec(hash) ?? []
  if (view === 'flow' || view === 'letters') return { view, device: null }
  try {
    return { view: 'devices', device: device === '' ? null : decodeURIComponent(device) }
  } catch {
    return { view: 'devices', device: null }
  }
}
export const hashOf = ({ view, device }: Route): string =>
  device === null ? `#/${view}` : `#/devices/${encodeURIComponent(device)}`
