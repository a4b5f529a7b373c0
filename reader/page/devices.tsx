// The devices: search and filters above their table, what it shows and its export below; what to do where there are none.
import { useSignal } from '@preact/signals'
import { useRef } from 'preact/hooks'
import { wordsOf } from './api'
import { type Broker, firstReading } from './hops'
import { listQuery, type Mode } from './queries'
import type { Store } from './store'
import { MOST_ROWS, SPARE_ROWS, Table } from './table'
import { count } from './text'

const SEARCH_MS = 150
const MODES: [Mode, string][] = [
  ['all', 'All'],
  ['online', 'Online'],
  ['silent', 'Silent'],
]

export function Devices({ store }: { store: Store }) {
  const { isLoaded, isWhole, total, matched, problem } = store.list.value
  const isEmpty = isLoaded && isWhole && total === 0
  return (
    <>
      <Toolbar store={store} />
      {problem !== null && (
        <p class="inline-note" role="status">
          {problem}. What comes live is still shown.
        </p>
      )}
      {isEmpty ? (
        <NoDevices broker={store.flow.value.flow?.bridges[0]?.mqtt ?? DEFAULT_BROKER} />
      ) : isLoaded && isWhole && matched === 0 ? (
        <NothingMatches store={store} />
      ) : (
        <>
          <Table store={store} />
          <Footer store={store} />
        </>
      )}
    </>
  )
}

function Toolbar({ store }: { store: Store }) {
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined)
  const { text, mode } = store.filter.value
  const search = (value: string) => {
    clearTimeout(timer.current)
    timer.current = setTimeout(() => store.filterBy({ ...store.filter.peek(), text: value }), SEARCH_MS)
  }
  return (
    <div class="toolbar">
      <div class="search">
        <svg viewBox="0 0 16 16" aria-hidden="true">
          <path d="M7 12.500a5.500 5.500 0 1 1 0-11 5.500 5.500 0 0 1 0 11zM11 11l3.500 3.500" />
        </svg>
        <input
          type="search"
          aria-label="Search device ids"
          placeholder="Search devices"
          value={text}
          onInput={(event) => search(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key !== 'ArrowDown' && event.key !== 'Enter') return
            event.preventDefault()
            document.querySelector<HTMLElement>('[role=grid]')?.focus()
          }}
        />
        <kbd aria-hidden="true">/</kbd>
      </div>
      <fieldset class="segments">
        <legend class="hidden">Which devices</legend>
        {MODES.map(([name, title]) => (
          <button
            key={name}
            type="button"
            aria-pressed={mode === name}
            onClick={() => store.filterBy({ text, mode: name })}
          >
            {title}
          </button>
        ))}
      </fieldset>
    </div>
  )
}

const DEFAULT_BROKER: Broker = { url: 'mqtt://localhost:1883', topic_prefix: 'devices' }

function NoDevices({ broker }: { broker: Broker }) {
  const line = firstReading(broker, location.hostname)
  const isCopied = useSignal(false)
  return (
    <div class="blank">
      <h2>No device has sent anything yet</h2>
      <p class="muted">Send a first reading. It appears here by itself.</p>
      <div class="line-to-paste">
        <code>{line}</code>
        <button
          type="button"
          onClick={() => {
            void navigator.clipboard?.writeText(line)
            isCopied.value = true
          }}
        >
          {isCopied.value ? 'Copied' : 'Copy'}
        </button>
      </div>
    </div>
  )
}

function NothingMatches({ store }: { store: Store }) {
  const { text, mode } = store.filter.value
  return (
    <div class="blank">
      <h2>Nothing matches</h2>
      <p class="muted">
        No {mode === 'all' ? '' : `${mode} `}device{text === '' ? '' : ` has “${text}” in its id`}.
      </p>
      <button type="button" onClick={() => store.filterBy({ text: '', mode: 'all' })}>
        Show all devices
      </button>
    </div>
  )
}

function Footer({ store }: { store: Store }) {
  const { matched, total, isLoaded } = store.list.value
  const rowCount = Math.min(matched, MOST_ROWS)
  const { first, last } = store.view.value
  const from = first === 0 ? 1 : first + SPARE_ROWS + 1
  const to = last >= rowCount - 1 ? rowCount : Math.max(last - SPARE_ROWS, 1)
  return (
    <footer class="foot">
      <span>
        {isLoaded && `${count(Math.min(from, to))}–${count(to)} of ${count(matched)}`}
        {isLoaded && matched < total && ` that match, of ${count(total)}`}
      </span>
      {matched > MOST_ROWS && <span>The first {count(MOST_ROWS)} are listed: search for others.</span>}
      <Export store={store} path={`/states?${listQuery(store.filter.value)}`} name="devices" />
    </footer>
  )
}

/** Saves all that a call answers, as a file. */
export function Export({ store, path, name }: { store: Store; path: string; name: string }) {
  const outcome = useSignal('')
  const save = (format: 'csv' | 'ndjson') => {
    outcome.value = 'saving …'
    store.api.save(`${path}&format=${format}`, `${name}.${format}`).then(
      () => {
        outcome.value = ''
      },
      (error) => {
        outcome.value = wordsOf(error)
      },
    )
  }
  return (
    <span class="export">
      <span role="status">{outcome}</span>
      Export
      <button type="button" class="quiet small" onClick={() => save('csv')}>
        CSV
      </button>
      <button type="button" class="quiet small" onClick={() => save('ndjson')}>
        NDJSON
      </button>
    </span>
  )
}
