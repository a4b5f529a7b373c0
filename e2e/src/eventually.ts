/**
 * Waits until `condition` returns something truthy, and returns that; what it throws counts as not yet.
 * @param what for the error: what was waited for
 * @throws when it did not come within `timeoutMs`
 */
export async function eventually<T>(
  condition: () => Promise<T> | T,
  what: string | (() => string),
  timeoutMs = 120_000, // only a failure waits so long
): Promise<T> {
  const deadline = Date.now() + timeoutMs
  let last: unknown
  for (;;) {
    try {
      const value = await condition()
      if (value) return value
      last = value
    } catch (error) {
      last = error
    }
    if (Date.now() > deadline) {
      const waited = typeof what === 'string' ? what : what()
      throw new Error(`not seen within ${timeoutMs} ms: ${waited} (last: ${String(last)})`)
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
