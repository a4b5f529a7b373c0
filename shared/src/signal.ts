// Waiting for something that another part of the same process will say, written once.

export type Signal = {
  /** Resolves at the next `wake`, or after `timeoutMs` if that comes first; Infinity waits for `wake` alone. */
  wait(timeoutMs?: number): Promise<void>
  /** Wakes everybody who waits now. It is not kept for those who wait later: they look at the state before waiting. */
  wake(): void
}

export function createSignal(): Signal {
  const waiting = new Set<() => void>()
  return {
    wait: (timeoutMs = Number.POSITIVE_INFINITY) =>
      new Promise((resolve) => {
        const done = () => {
          clearTimeout(timer)
          waiting.delete(done)
          resolve()
        }
        const timer = Number.isFinite(timeoutMs) ? setTimeout(done, Math.max(Math.ceil(timeoutMs), 0)) : undefined
        waiting.add(done)
      }),
    wake() {
      for (const done of [...waiting]) done()
    },
  }
}
