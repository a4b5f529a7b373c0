// Each of the five processes killed under load: every reading that was acknowledged arrives, in order.
import { expect, test } from 'vitest'
import { usePlatform } from '../fixture.js'
import { runCell } from './cell.js'
import { COMPONENTS, strike } from './faults.js'

const LOAD = { devices: 20, ratePerSecond: 500, beforeMs: 2000, afterMs: 1000 }

const fixture = usePlatform({ servers: {} })

test.each(COMPONENTS)('%s killed under load: nothing is missing, out of order or wrong', async (component) => {
  const { platform, cluster } = fixture
  // it writes its file every 5 s, and at this signal: else it forgets the session, and delivers the cell before again
  await cluster.mosquitto.signal('SIGUSR1')
  const row = await runCell(platform, cluster, `kill-${component}`, LOAD, () =>
    strike(platform, cluster, { component, kind: 'SIGKILL' }),
  )
  expect(row.sent).toBeGreaterThan(LOAD.ratePerSecond)
  expect(row).toMatchObject({
    missing: 0,
    out_of_order: 0,
    foreign: 0,
    missing_in_history: 0,
    wrong_last_state: 0,
    ...(component === 'mosquitto' ? {} : { lost_by_broker: 0 }),
  })
}, 120_000)
