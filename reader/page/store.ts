// What the page knows: who may see it, the devices in sight, the feed's line, the flow. Components read its signals; it
// holds windows of the list and rings of fixed size, never a whole fleet.
import { batch, effect, type Signal, signal } from '@preact/signals'
import { CallError, createApi, wordsOf } from './api'
import { createFeed, type Link } from './feed'
import { afterFlow, type FlowState, noFlow } from './hops'
import { type Filter, feedQuery, hashOf, listQuery, type Route, routeOf } from './queries'
import { afterReading, type DeviceState, type FeedEvent, olderOf, type StatesPage, stateOf, statesPageOf } from './wire'

export const PAGE_ROWS = 100
const KEPT_PAGES = 6
const SETTLED_MS = 200 // after the last scroll
const REFRESH_MS = 10_000
const ASK_MS = 5000
const COUNTS_SHARE = 20 // of the time, at most one in so much goes into counting
const SKEW_SECONDS = 2 // a Date header has whole seconds

export type List = { total: number; matched: number; isLoaded: boolean; isWhole: boolean; problem: string | null }
type Page = { ids: string[]; position: string }
export type Gate = 'open' | 'asks' | 'refused'

export type Store = ReturnType<typeof createStore>

export function createStore() {
  const gate = signal<Gate>('open')
  const link = signal<Link>({ state: 'connecting', since: Date.now(), retryAt: 0 })
  const now = signal(Date.now() / 1000)
  const lastHeard = signal(0)
  const flow = signal<FlowState>(noFlow)
  const notice = signal('')
  const filter = signal<Filter>({ text: '', mode: 'all' })
  const list = signal<List>({ total: 0, matched: 0, isLoaded: false, isWhole: false, problem: null })
  const pages = signal<ReadonlyMap<number, Page>>(new Map())
  const counts = signal<{ online: number | null; silent: number | null }>({ online: null, silent: null })
  const view = signal({ first: 0, last: 30 })
  const route = signal(routeOf(location.hash))
  /** Rises when what a device's view has read may have a hole. */
  const restarts = signal(0)
  const mayCommand = signal(true)
  const mayWatch = signal(true)

  const rows = new Map<string, Signal<DeviceState>>()
  const pending = new Map<string, DeviceState>()
  const listeners = new Set<(reading: DeviceState) => void>()
  let skew = 0
  let isDrawing = false
  const loading = new Map<number, Filter>()
  let shownFilter = filter.peek() // those of the one before are shown until the answer comes
  let openedPosition = ''
  let heard: DeviceState | undefined // the newest that listeners know of the device that is opened
  let countsDue = 0
  let followed = new Set<string>()

  const api = createApi({
    onUnauthorized(hadKey) {
      gate.value = hadKey ? 'refused' : 'asks'
      feed.stop()
    },
    onHeaders(serverSeconds, keyAllows) {
      const off = serverSeconds - Date.now() / 1000
      skew = Math.abs(off) > SKEW_SECONDS ? off : 0
      mayCommand.value = keyAllows === null
      mayWatch.value = keyAllows !== 'read-prefix'
    },
  })
  const feed = createFeed({
    api,
    onEvent: (event) => take(event),
    onLink: (state) => onLink(state),
    onPlaceLost: renew,
  })

  function onLink(state: Link): void {
    const isBack = state.state === 'live' && link.peek().state !== 'live'
    link.value = state
    if (isBack) void refresh()
  }

  /** Everything in sight is fetched anew: the feed has told of a hole. */
  function renew(): void {
    restarts.value++
    void refresh()
  }

  function take({ event, data, id }: FeedEvent): void {
    lastHeard.value = Date.now()
    if (event === 'update') takeReading(stateOf(data, id))
    else if (event === 'presence') {
      const { device_id, online } = JSON.parse(data) as { device_id: string; online: boolean | null }
      const state = pending.get(device_id) ?? rows.get(device_id)?.peek()
      if (state) put({ ...state, online })
    } else if (event === 'flow') flow.value = afterFlow(flow.peek(), JSON.parse(data))
    else if (event === 'gap') {
      const { reason, missed } = JSON.parse(data) as { reason: string; missed?: number }
      notice.value =
        reason === 'topic_changed'
          ? 'The Kafka topic was created anew: the latest values were fetched again.'
          : `${missed?.toLocaleString('en-GB') ?? 'Some'} updates were no longer in Kafka: the latest values were fetched again.`
      renew()
    }
  }

  function takeReading(reading: DeviceState): void {
    const state = pending.get(reading.id) ?? rows.get(reading.id)?.peek()
    const isOpened = reading.id === route.peek().device
    if (isOpened) tell(reading)
    const next = afterReading(state, reading)
    if (next !== state && (state || isOpened)) put(next)
  }

  /** Listeners hear each reading once: a page of states may have shown a later one before it came. */
  function tell(reading: DeviceState): void {
    const before = heardOf(reading.id)
    heard = afterReading(before, reading)
    if (heard !== before) for (const listener of listeners) listener(reading)
  }
  const heardOf = (id: string) => (heard?.id === id ? heard : undefined)

  /** States change together, once for each frame that is drawn. */
  function put(state: DeviceState): void {
    pending.set(state.id, state)
    if (isDrawing) return
    isDrawing = true
    requestAnimationFrame(() => {
      isDrawing = false
      batch(() => {
        for (const next of pending.values()) keep(next)
        pending.clear()
      })
    })
  }

  function keep(state: DeviceState): void {
    const row = rows.get(state.id)
    if (row) row.value = state
    else rows.set(state.id, signal(state))
  }

  async function loadPage(index: number): Promise<void> {
    const asked = filter.peek()
    if (loading.get(index) === asked) return
    loading.set(index, asked)
    const query = `${listQuery(asked)}&limit=${PAGE_ROWS}&offset=${index * PAGE_ROWS}`
    const answer = await api.text(`/states?${query}`).then(statesPageOf, (error: unknown) => error)
    if (loading.get(index) === asked) loading.delete(index)
    if (filter.peek() !== asked) return
    if (!('devices' in (answer as StatesPage))) {
      const isGone = answer instanceof CallError && (answer.status === 0 || answer.status === 401)
      if (!isGone) list.value = { ...list.peek(), problem: wordsOf(answer) }
      return
    }
    const { total, matched, isWhole, position, devices } = answer as StatesPage
    batch(() => {
      for (const state of devices) keep(newer(state))
      const others = shownFilter === asked ? [...pages.peek()].filter(([at]) => at !== index) : []
      shownFilter = asked
      const kept = others.slice(1 - KEPT_PAGES)
      pages.value = new Map([...kept, [index, { ids: devices.map(({ id }) => id), position }]])
      list.value = { total, matched, isLoaded: true, isWhole, problem: null }
    })
    forgetRows()
  }

  /** A page's state; or what the feed has told meanwhile, with the page's word on presence. */
  function newer(state: DeviceState): DeviceState {
    const row = pending.get(state.id) ?? rows.get(state.id)?.peek()
    return row ? { ...afterReading(row, state), online: state.online } : state
  }

  function forgetRows(): void {
    const held = new Set([...pages.peek().values()].flatMap(({ ids }) => ids))
    for (const id of rows.keys()) if (!held.has(id) && id !== route.peek().device) rows.delete(id)
  }

  const pagesInView = () => {
    const { first, last } = view.peek()
    const [from, to] = [Math.floor(first / PAGE_ROWS), Math.floor(last / PAGE_ROWS)]
    return Array.from({ length: to - from + 1 }, (_, index) => from + index)
  }
  async function refresh(): Promise<void> {
    await Promise.all(pagesInView().map(loadPage))
    await readCounts()
  }

  async function readCounts(): Promise<void> {
    const began = Date.now()
    if (began < countsDue) return
    countsDue = Number.POSITIVE_INFINITY
    const matched = (query: string) =>
      api.text(`/states?${query}&limit=1`).then(
        (text) => statesPageOf(text).matched,
        () => null,
      )
    const [online, silent] = await Promise.all([
      matched(listQuery({ text: '', mode: 'online' })),
      matched(listQuery({ text: '', mode: 'silent' })),
    ])
    counts.value = { online, silent }
    countsDue = Date.now() + COUNTS_SHARE * (Date.now() - began)
  }

  /** The device that is opened, which the list need not show. */
  async function loadOpened(id: string): Promise<void> {
    const { devices, position } = statesPageOf(await api.text(`/states?prefix=${encodeURIComponent(id)}&limit=1`))
    openedPosition = position
    const state =
      devices[0]?.id === id ? devices[0] : stateOf(await api.text(`/devices/${encodeURIComponent(id)}/state`))
    if (route.peek().device === id) {
      heard = afterReading(heardOf(id), state)
      keep(newer(state))
    }
    followInView()
  }

  const idAt = (index: number): string | undefined =>
    pages.value.get(Math.floor(index / PAGE_ROWS))?.ids[index % PAGE_ROWS]

  function followInView(): void {
    if (gate.peek() !== 'open' || !list.peek().isLoaded) return
    const { first, last } = view.peek()
    const { device } = route.peek()
    const found = Array.from({ length: last - first + 1 }, (_, index) => idAt(first + index))
    const ids = new Set([device, ...found].filter((id) => id != null))
    const isNew = (id: string) => !followed.has(id)
    const positions = [...pages.peek().values()].filter((page) => page.ids.some((id) => ids.has(id) && isNew(id)))
    const position = positions.reduce((oldest, page) => olderOf(oldest, page.position), '')
    const isOpenedNew = device !== null && isNew(device)
    if (ids.size === 0 && !mayWatch.peek()) return // its key has nobody to follow
    followed = ids
    feed.follow(
      feedQuery([...ids], device !== null, mayWatch.peek()),
      isOpenedNew ? olderOf(position, openedPosition) : position,
    )
  }

  function start(): void {
    let settling: ReturnType<typeof setTimeout> | undefined
    effect(() => {
      const { first, last } = view.value
      void pages.value
      void route.value
      void filter.value
      clearTimeout(settling)
      settling = setTimeout(
        () => {
          const isMissing = (index: number) =>
            !pages.peek().has(index) && index * PAGE_ROWS < Math.max(list.peek().matched, 1)
          for (const index of pagesInView()) if (isMissing(index)) void loadPage(index)
          if (last >= first) followInView()
        },
        list.peek().isLoaded ? SETTLED_MS : 0,
      )
    })
    addEventListener('hashchange', () => {
      route.value = routeOf(location.hash)
    })
    const whileSeen = (action: () => void, ms: number) =>
      setInterval(() => {
        if (!document.hidden && gate.peek() === 'open') action()
      }, ms)
    whileSeen(() => {
      now.value = Date.now() / 1000 + skew
      const { isLoaded, isWhole, total } = list.peek()
      if (isLoaded && (!isWhole || total === 0)) void refresh() // it only begins
    }, 1000)
    whileSeen(() => {
      if (link.peek().state !== 'lost') void refresh()
    }, REFRESH_MS)
    whileSeen(() => {
      if (link.peek().state === 'busy') void refresh()
    }, ASK_MS)
    void refresh()
  }

  return {
    gate,
    link,
    now,
    lastHeard,
    flow,
    notice,
    filter,
    list,
    pages,
    counts,
    view,
    route,
    restarts,
    mayCommand,
    mayWatch,
    api,
    start,
    refresh,
    loadOpened,
    idAt,
    row: (id: string) => rows.get(id),
    tryNow: feed.tryNow,
    go(next: Route) {
      location.hash = hashOf(next)
    },
    filterBy(next: Filter) {
      batch(() => {
        filter.value = next
        view.value = { first: 0, last: 30 }
      })
      void loadPage(0)
    },
    /** Calls `listener` for each reading of the device that is opened, until the function that it returns is called. */
    listen(listener: (reading: DeviceState) => void): () => void {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    giveKey(key: string) {
      api.setKey(key)
      batch(() => {
        gate.value = 'open'
        pages.value = new Map()
        list.value = { total: 0, matched: 0, isLoaded: false, isWhole: false, problem: null }
      })
      followed = new Set()
      void refresh()
    },
  }
}
