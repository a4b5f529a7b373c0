// Each of the five processes killed under load, each service at some of its writes: every reading that was acknowledged arrives, in order.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { root } from '@iot/stack/prepare'
import { expect, test } from 'vitest'
import { usePlatform } from '../fixture.js'
import { runCell } from './cell.js'
import { COMPONENTS, strike } from './faults.js'
import { hasStrace, killAtWrite } from './writes.js'

const LOAD = { devices: 20, ratePerSecond: 500, beforeMs: 2000, afterMs: 1000 }

const clean = { missing: 0, out_of_order: 0, foreign: 0, missing_in_history: 0, wrong_last_state: 0 }

// with "everysec" Redis answers up to two seconds before it writes where the disk is slow, and loses that when it is killed
const fixture = usePlatform({ servers: { redisOptions: ['--appendfsync', 'always'] } })

test.each(COMPONENTS)('%s killed under load: nothing is missing, out of order or wrong', async (component) => {
  const { platform, cluster } = fixture
  // it writes its file every 5 s, and at this signal: else it forgets the session, and delivers the cell before again
  await cluster.mosquitto.signal('SIGUSR1')
  const row = await runCell(platform, cluster, `kill-${component}`, LOAD, () =>
    strike(platform, cluster, { component, kind: 'SIGKILL' }),
  )
  expect(row.sent).toBeGreaterThan(LOAD.ratePerSecond)
  expect(row).toMatchObject({ ...clean, ...(component === 'mosquitto' ? {} : { lost_by_broker: 0 }) })
}, 120_000)

test.runIf(hasStrace()).each([
  ['bridge', [11, 26]],
  ['consumer', [4]],
] as const)(
  '%s killed at its n-th write: n = %j',
  async (name, writes) => {
    const { platform, cluster } = fixture
    const row = await runCell(platform, cluster, `write-${name}`, LOAD, async () => {
      for (const n of writes) await killAtWrite(platform[name], n)
    })
    expect(row.sent).toBeGreaterThan(LOAD.ratePerSecond)
    expect(row).toMatchObject(clean)
  },
  120_000,
)

test('npm run chaos starts, and names what it can do', async () => {
  const chaos = promisify(execFile)(process.execPath, [
    join(root, 'e2e', 'dist', 'chaos', 'main.js'),
    '--only',
    'nothing',
  ])
  const said = expect.stringContaining('--only nothing chooses none of bridge-SIGKILL, consumer-SIGKILL,')
  await expect(chaos).rejects.toMatchObject({ code: 1, stdout: said })
}, 120_000)
