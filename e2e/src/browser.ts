// A real browser for tests: Debian's chromium, or another one of its kind that is installed.
import { spawnSync } from 'node:child_process'
import { ensurePrograms } from '@iot/stack/prepare'
import { type Browser, chromium } from 'playwright-core'

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
const say = (line: string) => void process.stderr.write(`${line}\n`)

/** Where a browser is; undefined where there is none. */
export const findBrowser = (): string | undefined =>
  NAMES.map((name) => spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim()).find(Boolean)

/** Makes sure of one, as root on Debian; says so where that cannot be done. */
export function installBrowser(): void {
  if (findBrowser()) return
  try {
    ensurePrograms([{ program: 'chromium', apt: 'chromium', brew: 'chromium' }], say)
  } catch (error) {
    say(`the page is not tested in a browser: ${(error as Error).message}`)
  }
}

/** root has no sandbox; what is opened are pages of ours. */
export const openBrowser = (executablePath: string): Promise<Browser> =>
  chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] })
