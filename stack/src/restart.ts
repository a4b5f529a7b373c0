// `npm run dev`: a service is started again whenever what it is built of has changed.
import { watch } from 'node:fs'
import type { Server } from './process.js'

const QUIET_MS = 500 // a build writes many files

/** Restarts a server after something has changed in these folders. Returns a function that ends the watching. */
export function restartOnChange(server: Server, folders: string[], say: (line: string) => void): () => void {
  let timer: NodeJS.Timeout | undefined
  let done: Promise<void> = Promise.resolve()

  const restart = async () => {
    say(`${server.name} has changed; restarting it`)
    await server.stop()
    await server.start().then(
      () => say(`${server.name} is up again`),
      (error: Error) => say(error.message), // until the next change
    )
  }
  const onChange = () => {
    clearTimeout(timer)
    timer = setTimeout(() => {
      done = done.then(restart)
    }, QUIET_MS)
  }
  const watchers = folders.map((folder) => watch(folder, { recursive: true }, onChange))
  return () => {
    clearTimeout(timer)
    for (const watcher of watchers) watcher.close()
  }
}
