// Idempotency-Key: the same key of the same caller never sends twice.
import { createHash } from 'node:crypto'

const MAX_KEYS = 10_000 // of each caller

/** The answer to a command. `json` is asked each time it is sent: what a device said is kept in one place only. */
export type Answer = {
  statusCode: number
  json(): string
  /** Whether the device may have got the command, or get it. */
  mayArrive: boolean
}

/**
 * Returns a function that runs what has a key once, and gives the first answer again to whoever repeats it; null for
 * another request under a key that is taken. Where nothing can arrive the key is free again. Neither keys nor requests
 * are kept, only their hashes, the newest of each caller.
 */
export function createOnce(maxKeys = MAX_KEYS) {
  const callers = new Map<string, Map<string, { request: string; answer: Promise<Answer> }>>()

  return async (caller: string, key: string, request: string, run: () => Promise<Answer>): Promise<Answer | null> => {
    const kept = callers.get(caller) ?? new Map() // oldest first
    callers.set(caller, kept)
    const keyHash = hash(key)
    const requestHash = hash(request)
    const before = kept.get(keyHash)
    if (before) return before.request === requestHash ? before.answer : null
    const entry = { request: requestHash, answer: run() }
    kept.set(keyHash, entry)
    const [oldest] = kept.keys()
    if (kept.size > maxKeys && oldest !== undefined) kept.delete(oldest)
    const isDone = await entry.answer.then(
      ({ mayArrive }) => mayArrive,
      () => false,
    )
    if (!isDone && kept.get(keyHash) === entry) kept.delete(keyHash)
    return entry.answer
  }
}

const hash = (text: string) => createHash('sha256').update(text).digest('base64')
