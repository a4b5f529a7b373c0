import { expect, test } from 'vitest'
import { memoryWarning, readInfo } from './memory.js'

const info = (maxmemory: number, policy: string) =>
  readInfo(`# Memory\r\nused_memory:1000\r\nmaxmemory:${maxmemory}\r\nmaxmemory_policy:${policy}\r\n`)

test('a limit without eviction is what is wanted', () => {
  expect(info(1000, 'noeviction').get('used_memory')).toBe('1000')
  expect(memoryWarning(info(1000, 'noeviction'))).toBeNull()
})

test.each(['allkeys-lru', 'allkeys-random', 'volatile-ttl'])('%s throws data away', (policy) => {
  expect(memoryWarning(info(1000, policy))).toContain(policy)
})

test('no limit is said, and what a server does not tell is not guessed', () => {
  expect(memoryWarning(info(0, 'noeviction'))).toContain('no maxmemory')
  expect(memoryWarning(readInfo('redis_version:7.0.15\r\n'))).toBeNull()
})
