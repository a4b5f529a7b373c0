// The dead letters: what could not be processed, newest first, with why.
import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { CallError, wordsOf } from './api'
import type { Store } from './store'
import { age, bytes, count } from './text'

const REFRESH_MS = 5000
const LIMIT = 50
const REASONS: Record<string, string> = {
  invalid_device_id: 'The topic names no possible device',
  empty_payload: 'Nothing in it',
  not_utf8: 'Binary: neither JSON nor text',
  too_large: 'Too large',
  invalid_message: 'A record that is not of the platform’s form',
  redis_rejected: 'Redis refused it',
}

type Letter = {
  offset: number
  timestamp: number
  reason: string
  source: string
  device_id: string | null
  bytes: number
  text?: string
  base64?: string
}

export function Letters({ store }: { store: Store }) {
  const letters = useSignal<Letter[] | null>(null)
  const reason = useSignal('')
  const problem = useSignal('')
  useEffect(() => {
    let isCurrent = true
    const read = () =>
      store.api.text(`/dead-letters?limit=${LIMIT}${reason.value === '' ? '' : `&reason=${reason.value}`}`).then(
        (text) => {
          if (!isCurrent) return
          letters.value = (JSON.parse(text) as { letters: Letter[] }).letters
          problem.value = ''
        },
        (error) => {
          if (!isCurrent) return
          const isForbidden = error instanceof CallError && error.status === 403
          problem.value = isForbidden ? 'Your key does not show dead letters.' : wordsOf(error)
        },
      )
    void read()
    const timer = setInterval(() => {
      if (!document.hidden && store.link.peek().state !== 'lost') void read()
    }, REFRESH_MS)
    return () => {
      isCurrent = false
      clearInterval(timer)
    }
  }, [reason.value])
  return (
    <>
      <div class="toolbar">
        <label for="reason">Reason</label>
        <select
          id="reason"
          value={reason}
          onChange={(event) => {
            reason.value = event.currentTarget.value
          }}
        >
          <option value="">all</option>
          {Object.keys(REASONS).map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
        <span class="muted">{letters.value && `the newest ${count(letters.value.length)}`}</span>
      </div>
      {problem.value !== '' && (
        <p class="inline-note" role="status">
          {problem}
        </p>
      )}
      {letters.value === null && problem.value === '' && <i class="bar tall" />}
      {letters.value?.length === 0 && (
        <div class="blank">
          <h2>No dead letters</h2>
          <p class="muted">
            Everything that came{reason.value === '' ? '' : ' could be processed, or failed for another reason'}
            {reason.value === '' && ' could be processed'}.
          </p>
        </div>
      )}
      {letters.value && letters.value.length > 0 && (
        <ol class="letters" tabIndex={0} aria-label="Dead letters">
          {letters.value.map((letter) => (
            <Entry key={letter.offset} store={store} letter={letter} />
          ))}
        </ol>
      )}
    </>
  )
}

function Entry({ store, letter }: { store: Store; letter: Letter }) {
  const { timestamp, reason, source, device_id: device, bytes: size, text, base64 } = letter
  return (
    <li>
      <details>
        <summary>
          <span class="reason">{reason}</span>
          <span class="source" title={source}>
            {source || device || 'unknown source'}
          </span>
          <span class="muted">{bytes(size)}</span>
          <span class="muted">{age(Math.max(store.now.value - timestamp, 0))} ago</span>
        </summary>
        <p class="muted">
          {REASONS[reason] ?? reason}
          {base64 === undefined ? '' : ', shown as base64'}
        </p>
        <pre>{text ?? base64 ?? ''}</pre>
      </details>
    </li>
  )
}
