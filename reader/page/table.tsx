// The table of devices: of any length, with only the rows in sight in the page. It holds the focus and has the keys.
import { createFieldReader, numberFields } from '@iot/shared/json-text'
import { useComputed, useSignal } from '@preact/signals'
import { useEffect, useMemo, useRef } from 'preact/hooks'
import { SILENT_SECONDS } from './queries'
import type { Store } from './store'
import { age, plain } from './text'
import type { DeviceState } from './wire'

const ROW_PX = 36
export const SPARE_ROWS = 3 // above and below what is in sight
export const MOST_ROWS = 400_000 // browsers lay out about 16 million pixels
const SKELETON_ROWS = 20
const COLUMNS = 3

/** The fields that most of these devices have, in the order in which they stand there. */
export function columnsOf(states: readonly DeviceState[]): string[] {
  const seen = new Map<string, number>()
  for (const { payload } of states)
    for (const field of numberFields(payload)) seen.set(field, (seen.get(field) ?? 0) + 1)
  const order = [...seen.keys()]
  const best = [...order].sort((a, b) => (seen.get(b) as number) - (seen.get(a) as number)).slice(0, COLUMNS)
  return order.filter((field) => best.includes(field))
}

/** What the columns show; `read` cuts their texts out of a payload. */
type Columns = { names: string[]; read: (payload: string) => (string | undefined)[] }

/** Those of the rows in sight: no more need be looked through. */
function useColumns(store: Store): Columns {
  const last = useRef('[]')
  const names = useComputed(() => {
    const { first, last: end } = store.view.value
    const ids = Array.from({ length: end - first + 1 }, (_, index) => store.idAt(first + index))
    const states = ids.map((id) => (id === undefined ? undefined : store.row(id)?.peek()))
    const known = states.filter((state) => state !== undefined)
    if (known.length > 0) last.current = JSON.stringify(columnsOf(known)) // as text, so that equal ones are the same
    return last.current
  })
  const text = names.value
  return useMemo(() => {
    const fields = JSON.parse(text) as string[]
    return { names: fields, read: createFieldReader(fields) }
  }, [text])
}

export function Table({ store }: { store: Store }) {
  const grid = useRef<HTMLDivElement>(null)
  const active = useSignal(0)
  const { matched, isLoaded } = store.list.value
  const rowCount = isLoaded ? Math.min(matched, MOST_ROWS) : SKELETON_ROWS
  const columns = useColumns(store)
  const height = useRef(0)
  const look = () => {
    const box = grid.current
    if (!box) return
    const first = Math.max(Math.floor(box.scrollTop / ROW_PX) - SPARE_ROWS, 0)
    const last = Math.min(Math.ceil((box.scrollTop + height.current) / ROW_PX) + SPARE_ROWS, Math.max(rowCount - 1, 0))
    const { first: hadFirst, last: hadLast } = store.view.peek()
    if (first !== hadFirst || last !== hadLast) store.view.value = { first, last }
  }
  useEffect(() => {
    const box = grid.current as HTMLDivElement
    // it is told once at first; asked for while scrolling, it would cost a layout each time
    const observer = new ResizeObserver(() => {
      height.current = box.clientHeight
      look()
    })
    observer.observe(box)
    return () => observer.disconnect()
  }, [rowCount])
  useEffect(() => {
    grid.current?.scrollTo(0, 0)
    active.value = 0
  }, [store.filter.value])

  const walk = (event: KeyboardEvent) => {
    const box = grid.current as HTMLDivElement
    const inSight = Math.max(Math.floor(box.clientHeight / ROW_PX) - 2, 1)
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: inSight,
      PageUp: -inSight,
      Home: -rowCount,
      End: rowCount,
    }
    const id = store.idAt(active.value)
    if (event.key === 'Enter' && id !== undefined) store.go({ view: 'devices', device: id })
    const step = steps[event.key]
    if (step === undefined) return
    event.preventDefault()
    active.value = Math.min(Math.max(active.value + step, 0), rowCount - 1)
    const top = active.value * ROW_PX
    const free = box.clientHeight - 2 * ROW_PX // under the head
    if (top < box.scrollTop) box.scrollTop = top
    else if (top > box.scrollTop + free) box.scrollTop = top - free
  }
  const { first, last } = store.view.value
  const shown = Array.from(
    { length: Math.max(Math.min(last, rowCount - 1) - first + 1, 0) },
    (_, index) => first + index,
  )
  return (
    <div
      ref={grid}
      class={`grid columns-${columns.names.length}`}
      role="grid"
      tabIndex={0}
      aria-label="Devices"
      aria-rowcount={rowCount + 1}
      aria-activedescendant={shown.includes(active.value) ? `row-${active.value}` : undefined}
      aria-busy={!isLoaded}
      onScroll={look}
      onKeyDown={walk}
    >
      <Head columns={columns.names} />
      <div class="rows" role="presentation" style={{ height: `${rowCount * ROW_PX}px` }}>
        {shown.map((index) => (
          <Row
            key={index % shown.length} // elements are used again, whatever they show
            store={store}
            index={index}
            columns={columns}
            isActive={index === active.value}
            onOpen={(id) => {
              active.value = index
              store.go({ view: 'devices', device: id })
            }}
          />
        ))}
      </div>
    </div>
  )
}

function Head({ columns }: { columns: string[] }) {
  return (
    <div class="row head" role="row" aria-rowindex={1}>
      <span class="id" role="columnheader">
        Device
      </span>
      {columns.map((field) => (
        <span key={field} class="value" role="columnheader" title={field}>
          {field}
        </span>
      ))}
      {columns.length === 0 && (
        <span class="payload" role="columnheader">
          Payload
        </span>
      )}
      <span class="age" role="columnheader">
        Age
      </span>
    </div>
  )
}

type RowProps = { store: Store; index: number; columns: Columns; isActive: boolean; onOpen: (id: string) => void }

function Row({ store, index, columns, isActive, onOpen }: RowProps) {
  const id = store.idAt(index)
  const state = id === undefined ? undefined : store.row(id)?.value
  const place = { transform: `translateY(${index * ROW_PX}px)` }
  if (!state)
    return (
      <div class="row" role="row" aria-rowindex={index + 2} id={`row-${index}`} style={place}>
        <span class="id" role="gridcell">
          <i class="bar" />
        </span>
        {columns.names.map((field) => (
          <span key={field} class="value" role="gridcell">
            <i class="bar" />
          </span>
        ))}
        <span class="age" role="gridcell">
          <i class="bar" />
        </span>
      </div>
    )
  const isOpen = store.route.value.device === state.id
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the grid has the keys
    <div
      class={`row ${isActive ? 'active' : ''} ${isOpen ? 'open' : ''}`}
      role="row"
      aria-rowindex={index + 2}
      aria-selected={isOpen}
      id={`row-${index}`}
      style={place}
      onClick={() => onOpen(state.id)}
    >
      <span class="id" role="gridcell">
        <Online state={state} />
        <span class="name" title={state.id}>
          {state.id}
        </span>
      </span>
      <Values state={state} columns={columns} />
      <span class="age" role="gridcell">
        <Age store={store} timestamp={state.timestamp} />
      </span>
    </div>
  )
}

function Values({ state, columns }: { state: DeviceState; columns: Columns }) {
  const before = useRef(state)
  const isFresh = before.current.id === state.id && before.current !== state
  before.current = state
  if (!state.isReadable)
    return (
      <span class="payload bad" role="gridcell">
        not readable
      </span>
    )
  if (columns.names.length === 0)
    return (
      <span class="payload" role="gridcell">
        {state.payload.slice(0, 200)}
      </span>
    )
  return columns.read(state.payload).map((text, index) => (
    <span
      key={`${columns.names[index]}${isFresh ? state.timestamp : ''}`}
      class={`value ${text === undefined ? 'muted' : isFresh ? 'fresh' : ''}`}
      role="gridcell"
    >
      {text === undefined ? '–' : plain(text)}
    </span>
  ))
}

/** A mark and a word, so that it is not the colour alone. */
export function Online({ state: { online }, isWorded = false }: { state: DeviceState; isWorded?: boolean }) {
  const word = online === null ? 'not known' : online ? 'online' : 'offline'
  return (
    <span class={`online is-${online === null ? 'unknown' : word}`} title={word}>
      {/* biome-ignore lint/a11y/useAriaPropsSupportedByRole: it has a role wherever it has a label */}
      <i role={isWorded ? undefined : 'img'} aria-label={isWorded ? undefined : word}>
        {online === null ? '?' : ''}
      </i>
      {isWorded && word}
    </span>
  )
}

export function Age({ store, timestamp }: { store: Store; timestamp: number }) {
  if (timestamp === 0) return <span>no reading</span>
  const seconds = Math.max(store.now.value - timestamp, 0)
  const isSilent = seconds >= SILENT_SECONDS
  return (
    <span class={isSilent ? 'silent' : ''}>
      {isSilent && 'silent '}
      {seconds < 1 ? 'now' : age(seconds)}
    </span>
  )
}
