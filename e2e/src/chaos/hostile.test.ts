// A broker, a Kafka and a Redis that begin to talk nonsense in the middle of a connection, again and again: nothing that
// was acknowledged is missing or out of order, neither service ends or grows. `npm run chaos -- --hostile` does it at length.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startServers } from '../servers.js'
import { openStage, PEERS, type Stage } from './hostile.js'

const SESSIONS = 10
const SEED = Number(process.env.HOSTILE_SEED ?? 1)
const LIMIT_MB = 300

let stage: Stage
beforeAll(async () => {
  stage = await openStage(startServers, 1)
})
afterAll(() => stage?.close())

test.each(PEERS)(`${SESSIONS} sessions with a hostile peer: %s`, async (name) => {
  const { row, sessions, lastWords } = await stage.round(name, SEED, SESSIONS)
  expect(row, JSON.stringify(sessions)).toMatchObject({
    missing: 0,
    out_of_order: 0,
    missing_in_history: 0,
    wrong_last_state: 0,
    ...(name === 'mqtt' ? {} : { foreign: 0 }), // what a broker delivers is stored, whatever it is
  })
  expect(lastWords).toEqual([])
  expect(row.sent).toBeGreaterThan(0)
  expect(Math.max(row.bridge_mb, row.consumer_mb)).toBeLessThan(LIMIT_MB)
})
