// What is wrong at this moment, by cause, and since when: a leader that moves is no standstill, one that stays away is.

export type Problems = {
  /** Enters a problem or changes its words; it is as old as its first words. */
  set(cause: string, words: string): void
  clear(cause: string): void
  /** Clears the causes that do not concern us any more. */
  keep(concerns: (cause: string) => boolean): void
  /** The oldest problem that has lasted so long, in words; null when there is none. */
  lasting(ms: number): string | null
  readonly size: number
}

export function createProblems(nowMs: () => number): Problems {
  const problems = new Map<string, { words: string; sinceMs: number }>()
  return {
    set(cause, words) {
      problems.set(cause, { words, sinceMs: problems.get(cause)?.sinceMs ?? nowMs() })
    },
    clear: (cause) => void problems.delete(cause),
    keep(concerns) {
      for (const cause of problems.keys()) if (!concerns(cause)) problems.delete(cause)
    },
    lasting(ms) {
      let oldest: { words: string; sinceMs: number } | null = null
      for (const problem of problems.values()) if (!oldest || problem.sinceMs < oldest.sinceMs) oldest = problem
      return oldest && nowMs() - oldest.sinceMs >= ms ? oldest.words : null
    },
    get size() {
      return problems.size
    },
  }
}
