import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createSignal } from './signal.js'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

test('a wake ends every wait, and leaves no timer', async () => {
  const signal = createSignal()
  const waits = Promise.all([signal.wait(), signal.wait(1000)])
  signal.wake()
  await waits
  expect(vi.getTimerCount()).toBe(0)
})

test('a wait ends by itself after its time', async () => {
  const signal = createSignal()
  let done = false
  const wait = signal.wait(50).then(() => {
    done = true
  })
  await vi.advanceTimersByTimeAsync(49)
  expect(done).toBe(false)
  await vi.advanceTimersByTimeAsync(1)
  await wait
  expect(done).toBe(true)
})

test('a wake is not kept for a later wait', async () => {
  const signal = createSignal()
  signal.wake()
  let done = false
  void signal.wait().then(() => {
    done = true
  })
  await vi.advanceTimersByTimeAsync(1000)
  expect(done).toBe(false)
})
