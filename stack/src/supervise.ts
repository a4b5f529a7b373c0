// Keeps a server running: whenever it ends by itself it is started again, from this one place, with a pause that grows
// while it keeps failing.
import type { Server } from './process.js'

const FIRST_PAUSE_MS = 1000
const LONGEST_PAUSE_MS = 30_000
const STEADY_MS = 60_000 // who ran for so long has not failed in a row

type Options = {
  say(line: string): void
  /** Whether everything is being stopped: then nothing is started any more. */
  isStopping(): boolean
  pause?: (ms: number) => Promise<void>
  nowMs?: () => number
}

/** Takes over `onExit` of a server that is up. */
export function supervise(server: Server, options: Options): void {
  const { say, isStopping, pause = wait, nowMs = () => performance.now() } = options
  let failures = 0
  let upSinceMs = nowMs()

  const restart = async (reason: string) => {
    if (nowMs() - upSinceMs >= STEADY_MS) failures = 0
    for (let why = reason; !isStopping(); ) {
      const pauseMs = Math.min(FIRST_PAUSE_MS * 2 ** failures, LONGEST_PAUSE_MS)
      failures++
      say(`${why}; starting it again in ${pauseMs / 1000} s`)
      await pause(pauseMs)
      if (isStopping()) return
      try {
        await server.start()
        upSinceMs = nowMs()
        say(`${server.name} is up again`)
        return
      } catch (error) {
        why = (error as Error).message
      }
    }
  }
  server.onExit = (code) => {
    if (!isStopping()) void restart(`${server.name} ended (${code === null ? 'signal' : `exit code ${code}`})`)
  }
}

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))
