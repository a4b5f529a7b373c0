// Which partition a key belongs to, as Java's clients choose it.

/** Java's 32-bit murmur2. */
function murmur2(key: Buffer): number {
  const M = 0x5bd1e995
  const length = key.length
  let h = 0x9747b28c ^ length
  let at = 0
  for (; at + 4 <= length; at += 4) {
    let k = Math.imul(key.readInt32LE(at), M)
    k = Math.imul(k ^ (k >>> 24), M)
    h = Math.imul(h, M) ^ k
  }
  const rest = length - at
  if (rest === 3) h ^= (key[at + 2] as number) << 16
  if (rest >= 2) h ^= (key[at + 1] as number) << 8
  if (rest >= 1) h = Math.imul(h ^ (key[at] as number), M)
  h = Math.imul(h ^ (h >>> 13), M)
  return h ^ (h >>> 15)
}

/** The partition of a key, from 0 to `partitions` - 1. */
export const partitionOf = (key: Buffer, partitions: number): number => (murmur2(key) & 0x7fffffff) % partitions
