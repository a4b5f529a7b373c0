// What went wrong, in words for a log line.

/**
 * An error's message, or its code where it has none. OpenSSL's words are taken out of its line
 * (`thread:error:code:library:function:words:file:line:...`), which is another one for each thread.
 */
export function describe(error: unknown): string {
  const { message, code } = error as { message?: string; code?: number | string }
  const text = message || String(code ?? error)
  return text.replace(/[0-9A-F]+:error:[0-9A-F]+:[^:]*:[^:]*:([^:]+):.*/s, '$1')
}
