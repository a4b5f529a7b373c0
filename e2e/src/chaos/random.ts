// Numbers that a seed draws: the same ones for the same seed.

export type Random = {
  /** From 0 to 1. */
  next(): number
  /** A whole number from 0 to below `below`. */
  below(below: number): number
  pick<T>(list: readonly T[]): T
  bytes(count: number): Buffer
}

/** mulberry32, public domain. */
export function createRandom(seed: number): Random {
  let state = seed
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let value = Math.imul(state ^ (state >>> 15), state | 1)
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61)
    return ((value ^ (value >>> 14)) >>> 0) / 4_294_967_296
  }
  const below = (limit: number) => Math.floor(next() * limit)
  return {
    next,
    below,
    pick: (list) => list[below(list.length)] as (typeof list)[number],
    bytes: (count) => Buffer.from(Array.from({ length: count }, () => below(256))),
  }
}
