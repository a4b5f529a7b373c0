// One device: what it said last, its numbers over time, its newest updates, a command to it, its readings as a file.
import { createFieldReader, elementTexts, isNumberText, memberText, numberFields } from '@iot/shared/json-text'
import { type Signal, useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { CallError, wordsOf } from './api'
import { Chart } from './chart'
import { Command } from './command'
import { Export } from './devices'
import { afterValue, type Series, seriesOf } from './series'
import type { Store } from './store'
import { Age, Online } from './table'
import { clock, indented } from './text'
import { type DeviceState, stateOf } from './wire'

const RANGES: [string, string, number][] = [
  ['15m', '15 min', 900],
  ['1h', '1 h', 3600],
  ['5h', '5 h', 18_000],
]
const UPDATES = 200
const CHARTS = 4 // at first; the others when asked for
const FIELDS_A_CALL = 20
const DRAW_MS = 500
const REFRESH_MS = 60_000 // late readings and moved buckets are the server's to tell

export type Plot = { every: number; length: number; fields: Map<string, Series> }

export function Device({ store, id }: { store: Store; id: string }) {
  const problem = useSignal('')
  useEffect(() => {
    store.loadOpened(id).catch((error) => {
      problem.value =
        error instanceof CallError && error.status === 404 ? 'No reading of this device is stored.' : wordsOf(error)
    })
  }, [store.restarts.value])
  void store.list.value // a row of the list may be this one
  void store.now.value
  const state = store.row(id)?.value
  return (
    <section class="panel device" aria-label={`Device ${id}`}>
      <header class="device-head">
        <a class="back" href="#/" aria-label="Back to the list">
          <svg viewBox="0 0 16 16" aria-hidden="true">
            <path d="M10 3 5 8l5 5" />
          </svg>
        </a>
        <h2 title={id}>{id}</h2>
        {state && <Online state={state} isWorded={true} />}
        {state && (
          <span class="muted">
            <Age store={store} timestamp={state.timestamp} /> {store.now.value - state.timestamp < 1 ? '' : 'ago'}
          </span>
        )}
      </header>
      {problem.value !== '' && (
        <p class="inline-note" role="status">
          {problem}
        </p>
      )}
      <div class="device-body">
        <Charts store={store} id={id} />
        {state && <Payload text={state.payload} />}
        <Updates store={store} id={id} />
        <Command store={store} id={id} />
      </div>
    </section>
  )
}

function Payload({ text }: { text: string }) {
  return (
    <section class="block">
      <h3>Payload</h3>
      <pre tabIndex={0} role="region" aria-label="Payload">
        {indented(text)}
      </pre>
    </section>
  )
}

function Charts({ store, id }: { store: Store; id: string }) {
  const range = useSignal('15m')
  const fields = useSignal<string[] | null>(null)
  const isAllShown = useSignal(false)
  const plot = useSignal<Plot | null>(null)
  const problem = useSignal('')
  const [, , seconds] = RANGES.find(([name]) => name === range.value) as [string, string, number]
  const shown = (fields.value ?? []).slice(0, isAllShown.value ? FIELDS_A_CALL : CHARTS)
  const path = `/devices/${encodeURIComponent(id)}/series`

  useEffect(() => {
    const read = () =>
      store.api.text(`${path}/fields?last=${range.value}`).then(
        (text) => {
          fields.value = inOrderOf(store.row(id)?.peek()?.payload ?? '', JSON.parse(text) as string[])
        },
        (error) => {
          problem.value = wordsOf(error)
        },
      )
    void read()
  }, [range.value, store.restarts.value])

  const wanted = shown.join(',')
  useEffect(() => {
    if (wanted === '') return
    let isCurrent = true
    const read = () =>
      store.api.text(`${path}?fields=${encodeURIComponent(wanted)}&last=${range.value}`).then(
        (text) => {
          if (!isCurrent) return
          const { every, fields } = seriesOf(text, shown)
          plot.value = { every, length: Math.max(Math.ceil(seconds / every), 1) + 1, fields }
          problem.value = ''
        },
        (error) => {
          if (isCurrent) problem.value = wordsOf(error)
        },
      )
    void read()
    const timer = setInterval(() => {
      if (!document.hidden) void read()
    }, REFRESH_MS)
    return () => {
      isCurrent = false
      clearInterval(timer)
    }
  }, [wanted, range.value, store.restarts.value])
  usePlotOfReadings(store, id, plot, fields)

  return (
    <section class="block charts">
      <div class="block-head">
        <h3>Numbers</h3>
        <fieldset class="segments small">
          <legend class="hidden">Time</legend>
          {RANGES.map(([name, title]) => (
            <button
              key={name}
              type="button"
              aria-pressed={range.value === name}
              onClick={() => {
                range.value = name
              }}
            >
              {title}
            </button>
          ))}
        </fieldset>
      </div>
      {problem.value !== '' && (
        <p class="inline-note" role="status">
          {problem}
        </p>
      )}
      {fields.value === null && problem.value === '' && <i class="bar tall" />}
      {fields.value?.length === 0 && <p class="muted">No numbers in its readings of this time.</p>}
      {shown.map((field) => (
        <Chart key={`${field} ${range.value}`} field={field} plot={plot} span={range.value} store={store} />
      ))}
      {fields.value !== null && fields.value.length > shown.length && !isAllShown.value && (
        <button
          type="button"
          class="quiet"
          onClick={() => {
            isAllShown.value = true
          }}
        >
          Show {Math.min(fields.value.length, FIELDS_A_CALL) - shown.length} more
        </button>
      )}
    </section>
  )
}

/** Those that a call can name, as they stand in the payload, and then the others. */
function inOrderOf(payload: string, fields: string[]): string[] {
  const order = numberFields(payload).filter((field) => fields.includes(field))
  return [...order, ...fields.filter((field) => !order.includes(field))].filter((field) => !field.includes(','))
}

/** Puts what comes live into the plot, drawn at most twice a second. */
function usePlotOfReadings(store: Store, id: string, plot: Signal<Plot | null>, fields: Signal<string[] | null>): void {
  useEffect(() => {
    let waiting: DeviceState[] = []
    const draw = setInterval(() => {
      const current = plot.peek()
      if (!current || waiting.length === 0) return
      const all = new Map(current.fields)
      const names = [...all.keys()]
      const readFields = createFieldReader(names)
      for (const { payload, timestamp } of waiting)
        for (const [index, text] of readFields(payload).entries()) {
          const name = names[index] as string
          if (text !== undefined && isNumberText(text))
            all.set(name, afterValue(all.get(name) as Series, current.every, current.length, timestamp, text))
        }
      waiting = []
      plot.value = { ...current, fields: all }
    }, DRAW_MS)
    const stop = store.listen((reading) => {
      if (reading.id !== id) return
      waiting = [...waiting.slice(1 - 2 * UPDATES), reading]
      const known = fields.peek()
      if (known?.length === 0) fields.value = numberFields(reading.payload) // its first numbers
    })
    return () => {
      stop()
      clearInterval(draw)
    }
  }, [])
}

type Update = { timestamp: number; payload: string; key: string }

function Updates({ store, id }: { store: Store; id: string }) {
  const updates = useSignal<Update[]>([])
  const isLoaded = useSignal(false)
  useEffect(() => {
    let isCurrent = true
    let live: Update[] = []
    let draw: ReturnType<typeof setTimeout> | undefined
    updates.value = []
    const stop = store.listen((reading) => {
      if (reading.id !== id) return
      live = [updateOf(reading), ...live].slice(0, UPDATES)
      draw ??= setTimeout(() => {
        draw = undefined
        updates.value = [...live, ...updates.peek()].slice(0, UPDATES)
        live = []
      }, DRAW_MS / 2)
    })
    store.api
      .text(`/devices/${encodeURIComponent(id)}/history?limit=${UPDATES}`)
      .then((text) => {
        if (!isCurrent) return
        const known = elementTexts(memberText(text, 'messages') ?? '[]').map((message) => updateOf(stateOf(message)))
        const had = updates.peek()
        const newest = had.length === 0 ? known : known.filter(({ key }) => !had.some((update) => update.key === key))
        updates.value = [...had, ...newest].slice(0, UPDATES)
        isLoaded.value = true
      })
      .catch(() => {
        isLoaded.value = true // what comes live is shown all the same
      })
    return () => {
      isCurrent = false
      clearTimeout(draw)
      stop()
    }
  }, [store.restarts.value])
  const now = store.now.peek()
  return (
    <section class="block">
      <div class="block-head">
        <h3>Last updates</h3>
        <Export store={store} path={`/devices/${encodeURIComponent(id)}/history?order=asc`} name={id} />
      </div>
      {!isLoaded.value && <i class="bar tall" />}
      {isLoaded.value && updates.value.length === 0 && <p class="muted">None in the hours that are kept.</p>}
      {updates.value.length > 0 && (
        <ol class="updates" tabIndex={0} aria-label="Last updates">
          {updates.value.map(({ timestamp, payload, key }, index) => (
            <li key={`${key}${index}`}>
              <time>{clock(timestamp, now)}</time>
              <code title={payload.slice(0, 2000)}>{payload.slice(0, 500)}</code>
            </li>
          ))}
        </ol>
      )}
    </section>
  )
}

const updateOf = ({ timestamp, payload }: DeviceState): Update => ({
  timestamp,
  payload,
  key: `${timestamp} ${payload}`,
})
