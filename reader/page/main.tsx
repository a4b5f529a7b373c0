// The page: its frame, the strip of figures, who may see it, and which view is shown.
import { useSignal } from '@preact/signals'
import { type ComponentChildren, render } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { Device } from './device'
import { Devices } from './devices'
import { Figures, Flow } from './flow'
import { Letters } from './letters'
import type { Route } from './queries'
import { createStore, type Store } from './store'
import { age } from './text'
import 'uplot/dist/uPlot.min.css'
import './style.css'

const BANNER_MS = 3000
const SHORTCUTS: [string, string][] = [
  ['/', 'search'],
  ['↑ ↓ PgUp PgDn Home End', 'walk through the devices'],
  ['Enter', 'open the device'],
  ['Esc', 'back'],
  ['← →', 'in a chart: from point to point'],
  ['?', 'this list'],
]

/** A dialog that holds the focus; `onClose` is called when it was left. */
export function Dialog({
  title,
  onClose,
  children,
}: {
  title: string
  onClose?: () => void
  children: ComponentChildren
}) {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => dialog.current?.showModal(), [])
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape closes it as well
    <dialog
      ref={dialog}
      aria-label={title}
      onClose={onClose}
      onCancel={(event) => onClose || event.preventDefault()}
      onClick={(event) => event.target === dialog.current && onClose?.()}
    >
      <div class="dialog-body">
        <h2>{title}</h2>
        {children}
      </div>
    </dialog>
  )
}

function KeyDialog({ store, onClose }: { store: Store; onClose?: () => void }) {
  const text = useSignal('')
  const isRefused = store.gate.value === 'refused'
  const give = (event: Event) => {
    event.preventDefault()
    store.giveKey(text.value.trim())
    onClose?.()
  }
  return (
    <Dialog
      title={isRefused ? 'That key is not known here' : 'This platform asks for a key'}
      {...(onClose ? { onClose } : {})}
    >
      <p class="muted">
        One of <code>API_KEY</code> or <code>API_READ_KEY</code>. It stays in this tab, and is gone when you close it.
      </p>
      <form onSubmit={give}>
        <label for="key">Key</label>
        <input
          id="key"
          type="password"
          autocomplete="off"
          required
          aria-invalid={isRefused}
          value={text}
          onInput={(event) => {
            text.value = event.currentTarget.value
          }}
        />
        <div class="actions">
          {onClose && (
            <button type="button" class="quiet" onClick={() => onClose()}>
              Cancel
            </button>
          )}
          <button type="submit" class="primary">
            Open
          </button>
        </div>
      </form>
    </Dialog>
  )
}

/** What stands above everything while the line is down, and says when it will be tried again. */
function Banner({ store }: { store: Store }) {
  const { state, since, retryAt } = store.link.value
  void store.now.value
  const inSeconds = Math.max(Math.ceil((retryAt - Date.now()) / 1000), 0)
  const isLost = state === 'lost' && Date.now() - since > BANNER_MS
  if (!isLost && state !== 'busy')
    return store.notice.value === '' ? null : (
      <div class="banner note">
        <span>{store.notice}</span>
        <button
          type="button"
          onClick={() => {
            store.notice.value = ''
          }}
        >
          Dismiss
        </button>
      </div>
    )
  return (
    <div class={`banner ${isLost ? 'bad' : 'note'}`}>
      <span>
        {isLost
          ? `No connection for ${age((Date.now() - since) / 1000)}. What you see is from before; nothing is missed when it comes back.`
          : 'The server has as many live streams as it takes: values are asked for every 5 s.'}
      </span>
      <span class="muted">{inSeconds > 0 ? `next try in ${inSeconds} s` : 'trying …'}</span>
      <button type="button" onClick={() => store.tryNow()}>
        Try now
      </button>
    </div>
  )
}

const LINK_WORDS = {
  connecting: 'Connecting',
  live: 'Live',
  lost: 'No connection',
  busy: 'Every 5 s',
  resting: 'Resting',
}

function Header({ store, onHelp, onKey }: { store: Store; onHelp: () => void; onKey: () => void }) {
  const { state } = store.link.value
  return (
    <header class="top">
      <a class="brand" href="#/">
        <svg viewBox="0 0 32 32" aria-hidden="true">
          <path d="M4 17h6l3-9 6 16 3.500-10 1.500 3h4" />
        </svg>
        <h1>IoT platform</h1>
      </a>
      <span class={`link ${state}`} role="status">
        <i class="dot" aria-hidden="true" />
        {LINK_WORDS[state]}
      </span>
      <nav class="tools" aria-label="Tools">
        {store.api.hasKey() && (
          <button type="button" class="quiet" onClick={onKey}>
            Key
          </button>
        )}
        <a class="quiet" href="/docs">
          API docs
        </a>
        <button type="button" class="quiet" aria-label="Keyboard shortcuts" onClick={onHelp}>
          <kbd>?</kbd>
        </button>
      </nav>
    </header>
  )
}

const TABS: [Route['view'], string][] = [
  ['devices', 'Devices'],
  ['flow', 'Flow'],
  ['letters', 'Dead letters'],
]

function Tabs({ store }: { store: Store }) {
  const { view } = store.route.value
  return (
    <nav class="tabs" aria-label="Views">
      {TABS.map(([name, title]) => (
        <a
          key={name}
          class={`tab-${name}`}
          href={name === 'devices' ? '#/' : `#/${name}`}
          aria-current={view === name ? 'page' : undefined}
        >
          {title}
        </a>
      ))}
    </nav>
  )
}

function App({ store }: { store: Store }) {
  const isHelpShown = useSignal(false)
  const isKeyShown = useSignal(false)
  useShortcuts(store, () => {
    isHelpShown.value = true
  })
  if (store.gate.value !== 'open') return <KeyDialog key={store.gate.value} store={store} />
  const { view, device } = store.route.value
  const { state, since } = store.link.value
  void store.now.value
  const isOld = state === 'lost' && Date.now() - since > BANNER_MS
  return (
    <div class={`page view-${view} ${device === null ? '' : 'with-device'} ${isOld ? 'old' : ''}`}>
      <Header
        store={store}
        onHelp={() => {
          isHelpShown.value = true
        }}
        onKey={() => {
          isKeyShown.value = true
        }}
      />
      <Banner store={store} />
      <main>
        <Figures store={store} />
        <Flow store={store} />
        <div class="work">
          <section class="panel list" aria-label="Devices and dead letters">
            <Tabs store={store} />
            {view === 'letters' ? <Letters store={store} /> : <Devices store={store} />}
          </section>
          {device !== null && <Device key={device} store={store} id={device} />}
        </div>
      </main>
      {isHelpShown.value && (
        <Dialog
          title="Keyboard"
          onClose={() => {
            isHelpShown.value = false
          }}
        >
          <dl class="keys">
            {SHORTCUTS.map(([keys, what]) => (
              <div key={keys}>
                <dt>
                  {keys.split(' ').map((key) => (
                    <kbd key={key}>{key}</kbd>
                  ))}
                </dt>
                <dd>{what}</dd>
              </div>
            ))}
          </dl>
        </Dialog>
      )}
      {isKeyShown.value && (
        <KeyDialog
          store={store}
          onClose={() => {
            isKeyShown.value = false
          }}
        />
      )}
    </div>
  )
}

function useShortcuts(store: Store, onHelp: () => void): void {
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const isTyping = (event.target as Element).matches('input, textarea, select')
      if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog')) return
      if (event.key === 'Escape' && store.route.peek().device !== null) {
        store.go({ view: 'devices', device: null })
        document.querySelector<HTMLElement>('[role=grid]')?.focus()
      } else if (isTyping) return
      else if (event.key === '/') document.querySelector<HTMLElement>('input[type=search]')?.focus()
      else if (event.key === '?') onHelp()
      else return
      event.preventDefault()
    }
    addEventListener('keydown', onKey)
    return () => removeEventListener('keydown', onKey)
  }, [])
}

const store = createStore()
store.start()
render(<App store={store} />, document.getElementById('page') as HTMLElement)
