// Bounds log files that other processes append to: the file keeps its name and its writer, what is in it goes to `.1`.
import { copyFileSync, statSync, truncateSync } from 'node:fs'

/**
 * Copies a file that has grown past `maxBytes` to `<file>.1`, replacing that, and empties it. Lines written between the
 * two steps are lost; where there is no room for a copy, all of it.
 * @returns whether it did
 */
export function limitLog(file: string, maxBytes: number): boolean {
  if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) <= maxBytes) return false
  try {
    copyFileSync(file, `${file}.1`)
  } catch {
    // the disk is full: what matters most then is that the log takes less of it
  }
  truncateSync(file)
  return true
}
