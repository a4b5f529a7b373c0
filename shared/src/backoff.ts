// How long to wait before the next try of something that failed.

/** Exponential backoff with jitter: about 100 ms for the first attempt (0), never over 5 s. */
export const backoffMs = (attempt: number): number =>
  Math.min(100 * 2 ** Math.min(attempt, 6), 5000) * (0.75 + Math.random() / 2)

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
