// What went wrong, in words for a log line.

const MAX_WORDS = 500 // servers choose them: no line, and no search in it, without a bound

/**
 * An error's message, or its code where it has none, at most 500 characters. OpenSSL's words are taken out of its line
 * (`thread:error:code:library:function:words:file:line:...`), which is another one for each thread.
 */
export function describe(error: unknown): string {
  const { message, code } = error as { message?: string; code?: number | string }
  const text = (message || String(code ?? error)).slice(0, MAX_WORDS)
  return text.replace(/\b[0-9A-F]{1,32}:error:[0-9A-F]+:[^:]*:[^:]*:([^:]+):.*/s, '$1')
}
