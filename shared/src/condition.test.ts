import type { Logger } from 'pino'
import { register } from 'prom-client'
import { expect, test } from 'vitest'
import { createCondition } from './condition.js'

function planted() {
  const lines: string[] = []
  const logger = {
    warn: ({ error }: { error: string }, message: string) => lines.push(`${message}: ${error}`),
    info: (message: string) => lines.push(message),
  } as unknown as Logger
  const clock = { nowMs: 0 }
  const part = `part-${Math.random()}`
  const condition = createCondition(part, { wrong: 'stopped', right: 'going on' }, logger, () => clock.nowMs)
  const count = async () => {
    const { values } = (await register.getSingleMetric('iot_standstills_total')?.get()) ?? { values: [] }
    return values.find(({ labels }) => labels.part === part)?.value
  }
  return { lines, clock, condition, count }
}

test('a problem is one line and one count however often it is met, and its end is said', async () => {
  const { lines, condition, count } = planted()
  expect(await count()).toBe(0)
  for (let i = 0; i < 100; i++) condition.wrong('no leader')
  expect(condition.check()).toBe('no leader')
  condition.right()
  condition.right()
  expect(condition.check()).toBeNull()
  expect(lines).toEqual(['stopped: no leader', 'going on'])
  expect(await count()).toBe(1)
})

test('other words are the same standstill, and another line only when they come later', async () => {
  const { lines, clock, condition, count } = planted()
  condition.wrong('not connected')
  condition.wrong('timed out')
  clock.nowMs += 10_000
  condition.wrong('no leader')
  expect(condition.check()).toBe('no leader')
  expect(lines).toEqual(['stopped: not connected', 'stopped: no leader'])
  expect(await count()).toBe(1)
})

test('one that comes and goes is counted each time and logged once a minute', async () => {
  const { lines, clock, condition, count } = planted()
  for (let i = 0; i < 60; i++) {
    condition.wrong('flapping')
    condition.right()
    clock.nowMs += 1000
  }
  condition.wrong('flapping')
  expect(await count()).toBe(61)
  expect(lines.filter((line) => line === 'stopped: flapping')).toHaveLength(2)
})

test('words that last are logged, even where they came soon after others', () => {
  const { lines, clock, condition } = planted()
  condition.wrong('connection lost')
  for (let i = 0; i < 60; i++) {
    condition.wrong('connection refused')
    clock.nowMs += 1000
  }
  expect(lines).toEqual(['stopped: connection lost', 'stopped: connection refused'])
})
