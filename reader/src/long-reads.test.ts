import { expect, test } from 'vitest'
import { createLongReads } from './long-reads.js'
import type { RedisReader } from './redis/connection.js'

const all = async <T>(items: AsyncIterable<T>) => {
  const found: T[] = []
  for await (const item of items) found.push(item)
  return found
}
async function* pages(read: RedisReader['read'], count: number) {
  for (let page = 0; page < count; page++) yield (await read([['PAGE', page]]))[0]
}

test('one page is read at a time, in turn, and each read gets its own', async () => {
  let reading = 0
  const order: unknown[] = []
  const read: RedisReader['read'] = async ([command]) => {
    expect(++reading).toBe(1)
    await new Promise(setImmediate)
    reading--
    order.push(command?.[1])
    return [command?.[1]]
  }
  const longReads = createLongReads({ read })
  const begun = await Promise.all([1, 2, 3].map(() => longReads.begin((gently) => pages(gently, 4))))
  expect(await Promise.all(begun.map(all))).toEqual([1, 2, 3].map(() => [0, 1, 2, 3]))
  expect(order).toEqual([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
})

test('seats are bounded, and free again after an end, a failure, or for nobody who reads', async () => {
  const read: RedisReader['read'] = async ([command]) => [command?.[1]]
  const longReads = createLongReads({ read }, 2)
  const begin = (count = 5) => longReads.begin((gently) => pages(gently, count))
  const busy = expect.objectContaining({ statusCode: 503, code: 'BUSY' })
  const [first, second] = [await begin(), await begin()]
  await expect(begin()).rejects.toEqual(busy)
  await first.return?.()
  const third = await begin(2)
  expect(await all(third)).toEqual([0, 1])
  const broken = longReads.begin(async function* (): AsyncGenerator<number> {
    yield* []
    throw new Error('broken')
  })
  await expect(broken).rejects.toThrow('broken')
  const fourth = await begin()
  await expect(begin()).rejects.toEqual(busy)
  for (const items of [second, fourth]) await items.return?.()
  await begin()
})
