// A real browser for tests: Debian's chromium, or another one of its kind that is installed.
import { spawnSync } from 'node:child_process'
import { ensurePrograms } from '@iot/stack/prepare'
import { type Browser, chromium } from 'playwright-core'

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
const say = (line: string) => void process.stderr.write(`${line}\n`)

const find = (): string | undefined =>
  NAMES.map((name) => spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim()).find(Boolean)

/** Where a browser is, installed as root on Debian where there is none; undefined where that cannot be. */
export function findBrowser(): string | undefined {
  const found = find()
  if (found) return found
  try {
    ensurePrograms([{ program: 'chromium', apt: 'chromium', brew: 'chromium' }], say)
    return find()
  } catch (error) {
    say(`the page is not tested in a browser: ${(error as Error).message}`)
    return undefined
  }
}

/** root has no sandbox; what is opened are pages of ours. */
export const openBrowser = (executablePath: string): Promise<Browser> =>
  chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] })
