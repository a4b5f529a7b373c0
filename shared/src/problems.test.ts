import { expect, test } from 'vitest'
import { createProblems } from './problems.js'

test('a problem is told when it has lasted, the oldest first; new words do not make it younger', () => {
  let nowMs = 0
  const problems = createProblems(() => nowMs)
  expect(problems.lasting(0)).toBe(null)
  problems.set('broker 1', 'refused')
  nowMs = 2000
  problems.set('broker 1', 'timed out')
  problems.set('group', 'away')
  expect(problems.lasting(3000)).toBe(null)
  nowMs = 3000
  expect(problems.lasting(3000)).toBe('timed out')
  problems.clear('broker 1')
  expect(problems.lasting(3000)).toBe(null)
  nowMs = 5000
  expect(problems.lasting(3000)).toBe('away')
  problems.keep((cause) => cause !== 'group')
  expect(problems.size).toBe(0)
})
