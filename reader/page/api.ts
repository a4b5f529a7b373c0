// Calls to the reader, with the key in a header and nowhere else. The key is kept for this tab only.
const KEPT = 'iot-key'

/** An answer that is an error; `code` is the server's, or `UNREACHABLE`. */
export class CallError extends Error {
  readonly status: number
  readonly code: string

  constructor(status: number, code: string, message: string) {
    super(message)
    this.status = status
    this.code = code
  }
}

export type Api = ReturnType<typeof createApi>

export type ApiOptions = {
  /** The server wants a key, or another one. */
  onUnauthorized(hadKey: boolean): void
  /** What each answer tells beside its content: the server's clock, and what the key is not good for. */
  onHeaders(serverSeconds: number, keyAllows: string | null): void
}

export function createApi({ onUnauthorized, onHeaders }: ApiOptions) {
  let key = sessionStorage.getItem(KEPT) ?? ''

  /** @throws {CallError} for every answer that is not a success, and where none came */
  async function call(path: string, { headers, ...init }: RequestInit = {}): Promise<Response> {
    const access: Record<string, string> = key === '' ? {} : { authorization: `Bearer ${key}` }
    const response = await fetch(path, { ...init, cache: 'no-store', headers: { ...access, ...headers } }).catch(
      (error) => {
        if ((error as Error).name === 'AbortError') throw error
        throw new CallError(0, 'UNREACHABLE', 'The server does not answer')
      },
    )
    onHeaders(Date.parse(response.headers.get('date') ?? '') / 1000, response.headers.get('key-allows'))
    if (response.ok) return response
    if (response.status === 401) onUnauthorized(key !== '')
    const { code = 'ERROR', message = response.statusText } = await response.json().catch(() => ({}))
    throw new CallError(response.status, code, message)
  }

  return {
    call,
    text: async (path: string, init?: RequestInit): Promise<string> => (await call(path, init)).text(),
    setKey(text: string) {
      key = text
      if (text === '') sessionStorage.removeItem(KEPT)
      else sessionStorage.setItem(KEPT, text)
    },
    hasKey: () => key !== '',
    /** Saves what a call answers as a file. @throws {CallError} also when the answer broke off: no file is made then */
    async save(path: string, name: string): Promise<void> {
      const file = await (await call(path)).blob().catch(() => {
        throw new CallError(0, 'BROKEN_OFF', 'The export broke off before its end')
      })
      const link = document.createElement('a')
      link.href = URL.createObjectURL(file)
      link.download = name
      link.click()
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
    },
  }
}

/** What went wrong, in words. */
export const wordsOf = (error: unknown): string =>
  error instanceof CallError ? error.message : 'Something went wrong on this page'
