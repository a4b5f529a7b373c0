// A command to a device, checked before it is sent, sent once for each click, with the device's reply.
import { memberText } from '@iot/shared/json-text'
import { useSignal } from '@preact/signals'
import { CallError } from './api'
import type { Store } from './store'
import { indented } from './text'

const WAIT = '5s'
const PRESETS: [string, string][] = [
  ['start', '{"command":"start"}'],
  ['stop', '{"command":"stop"}'],
  ['set_interval', '{"command":"set_interval","interval":"500ms"}'],
]

/** What became of a command. */
type Outcome = { mark: string; kind: 'good' | 'note' | 'bad'; words: string; detail: string }

/** What keeps a text from being a command; an empty text where nothing does. */
export function problemOf(text: string): string {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'A command is a JSON object.'
    const { command } = value as { command?: unknown }
    return typeof command === 'string' && command !== '' ? '' : 'It needs a “command” that is a text.'
  } catch {
    return 'This is no JSON.'
  }
}

/** What the answer to a command says. */
export function outcomeOf(status: number, text: string, ms: number): Outcome {
  const read = (name: string) => memberText(text, name)
  const said = JSON.parse(read('status') ?? '""') as string
  const detail = read('result') ?? ''
  const took = `${Math.round(ms)} ms`
  if (said === 'succeeded') return { mark: '✓', kind: 'good', words: `Succeeded in ${took}`, detail }
  if (said === 'failed')
    return { mark: '✕', kind: 'bad', words: `The device says that it failed, after ${took}`, detail }
  if (read('no_subscribers') === 'true')
    return { mark: '!', kind: 'note', words: 'Sent, but nobody listens to this device’s commands', detail }
  return { mark: '→', kind: 'note', words: `Sent${status === 202 ? `, no reply within ${WAIT}` : ''}`, detail }
}

// crypto.randomUUID is there in secure contexts only, and a platform may be reached by plain HTTP
const newKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('')

export function Command({ store, id }: { store: Store; id: string }) {
  const text = useSignal(PRESETS[0]?.[1] ?? '')
  const outcome = useSignal<Outcome | null>(null)
  const isSending = useSignal(false)
  if (!store.mayCommand.value)
    return (
      <section class="block">
        <h3>Command</h3>
        <p class="muted">
          Your key may read only. Commands need one of <code>API_KEY</code>.
        </p>
      </section>
    )
  const problem = problemOf(text.value)
  const send = async (event: Event) => {
    event.preventDefault()
    if (isSending.peek() || problem !== '') return
    isSending.value = true
    const began = performance.now()
    const path = `/devices/${encodeURIComponent(id)}/command?wait=${WAIT}`
    const headers = { 'content-type': 'application/json', 'idempotency-key': newKey() }
    outcome.value = await store.api.call(path, { method: 'POST', headers, body: text.peek() }).then(
      async (answer) => outcomeOf(answer.status, await answer.text(), performance.now() - began),
      (error): Outcome => {
        const { code, message } = error instanceof CallError ? error : { code: '', message: String(error) }
        return { mark: '✕', kind: 'bad', words: message, detail: code }
      },
    )
    isSending.value = false
  }
  return (
    <section class="block">
      <h3>Command</h3>
      <form class="command" onSubmit={send}>
        <div class="presets">
          {PRESETS.map(([name, json]) => (
            <button
              key={name}
              type="button"
              class="chip"
              onClick={() => {
                text.value = json
              }}
            >
              {name}
            </button>
          ))}
        </div>
        <label class="hidden" for="command">
          Command as JSON
        </label>
        <textarea
          id="command"
          rows={3}
          spellcheck={false}
          value={text}
          aria-invalid={problem !== ''}
          aria-describedby="command-problem"
          onInput={(event) => {
            text.value = event.currentTarget.value
          }}
          onKeyDown={(event) => {
            if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) event.currentTarget.form?.requestSubmit()
          }}
        />
        <div class="actions">
          <span id="command-problem" class="muted">
            {problem}
          </span>
          <button type="submit" class="primary" disabled={problem !== ''} aria-disabled={isSending.value}>
            {isSending.value ? 'Waiting …' : 'Send'}
          </button>
        </div>
      </form>
      <div role="status" class="reply">
        {outcome.value && (
          <>
            <p class={outcome.value.kind}>
              <span aria-hidden="true">{outcome.value.mark}</span> {outcome.value.words}
            </p>
            {outcome.value.detail !== '' && <pre>{indented(outcome.value.detail)}</pre>}
          </>
        )}
      </div>
    </section>
  )
}
