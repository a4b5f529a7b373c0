import fc from 'fast-check'
import { expect, test } from 'vitest'
import { duration, upTo } from './calls.js'

test('a form takes the numbers up to its bound, and no other', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1_000_000 }), fc.nat(2_000_000), (most, number) => {
      const isTaken = (text: string) => new RegExp(`^${upTo(most)}$`).test(text)
      for (const near of [number, most - 1, most, most + 1])
        expect(isTaken(String(near)), `${near} of ${most}`).toBe(near >= 1 && near <= most)
      for (const other of ['', '01', `${most}0`, '-1', '1.5']) expect(isTaken(other), other).toBe(false)
    }),
  )
})

test('a duration has its unit and its bound', () => {
  const wait = duration(60_000, '60s')
  const values = { '1ms': 1, '60000ms': 60_000, '5s': 5000, '1m': 60_000 }
  for (const [text, ms] of Object.entries(values)) expect(wait.parse(text)).toBe(ms)
  for (const text of ['60001ms', '61s', '2m', '1h', '0s', '5', 's', '1 s'])
    expect(wait.safeParse(text).success).toBe(false)
})
