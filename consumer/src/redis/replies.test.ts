// A reply that is none of the scripts' own is a failure, and only a closed list of errors is about the data.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isAboutTheData, needsNewConnection, RefusedError, readScriptReply, wordsOf } from './replies.js'
import { NEW_DEVICE } from './scripts.js'

const WRONGTYPE = 'WRONGTYPE Operation against a key holding the wrong kind of value'

test('the replies that the scripts give', () => {
  expect(readScriptReply([3, 0], 3)).toEqual({ count: 0, refused: new Map() })
  expect(readScriptReply([1, 2], 3)).toEqual({ count: 2, refused: new Map() })
  const refused = new Map([
    [0, WRONGTYPE],
    [2, 'ERR value is not a valid float'],
  ])
  expect(readScriptReply([1, 0, 1, WRONGTYPE, 3, 'ERR value is not a valid float'], 3)).toEqual({ count: 0, refused })
})

test('readings that were cut are no devices, and one that is one too many is no failure', () => {
  expect(readScriptReply([3, 70], 3, false)).toEqual({ count: 70, refused: new Map() })
  expect(() => readScriptReply([3, 70], 3)).toThrow(RefusedError)
  expect(readScriptReply([2, 0, 3, NEW_DEVICE], 3)).toEqual({ count: 0, refused: new Map([[2, NEW_DEVICE]]) })
})

test.each<[string, unknown]>([
  ['nothing', undefined],
  ['nil', null],
  ['an empty array', []],
  ['an array of nil', [null]],
  ['two nils', [null, null]],
  ['a status', 'OK'],
  ['a number', 3],
  ['one number', [3]],
  ['numbers as strings', ['3', '0']],
  ['too few devices', [2, 0]],
  ['too many devices', [4, 0]],
  ['a negative count', [4, -1]],
  ['a fraction', [2.5, 0.5]],
  ['not a number', [Number.NaN, 0]],
  ['half a pair', [2, 0, 1]],
  ['device 0', [2, 0, 0, WRONGTYPE]],
  ['a device out of range', [2, 0, 99, WRONGTYPE]],
  ['a device that is not an integer', [2, 0, 1.5, WRONGTYPE]],
  ['a device twice', [1, 0, 2, WRONGTYPE, 2, WRONGTYPE]],
  ['devices in another order', [1, 0, 2, WRONGTYPE, 1, WRONGTYPE]],
  ['words that are no text', [2, 0, 1, null]],
  ['an error inside', [2, 0, 1, new Error(WRONGTYPE)]],
  ['an object', { 0: 3, 1: 0, length: 2 }],
])('%s is a failure', (_name, reply) => {
  expect(() => readScriptReply(reply, 3)).toThrow(RefusedError)
})

test('no reply that leaves a device unaccounted for is a success', () => {
  const reply = fc.array(fc.oneof(fc.integer({ min: -1, max: 5 }), fc.constantFrom(null, WRONGTYPE, 1.5)), {
    maxLength: 8,
  })
  fc.assert(
    fc.property(reply, fc.integer({ min: 1, max: 3 }), (reply, devices) => {
      try {
        const { count, refused } = readScriptReply(reply, devices)
        expect((reply[0] as number) + count + refused.size).toBe(devices)
        for (const at of refused.keys()) expect(at).toBeLessThan(devices)
      } catch (error) {
        expect(error).toBeInstanceOf(RefusedError)
      }
    }),
    { numRuns: 5000 },
  )
})

// As Redis 6.2.14, 7.0.15, 8.2.3 and Valkey 9.1.2 say them inside a pcall, and outside of one.
describe.each([
  ['6.2 in a pcall', (words: string) => `@user_script: 12: -${words}`],
  ['6.2', (words: string) => `ERR Error running script (call to f_b5f25a30db56): @user_script:12: ${words}`],
  ['7.0 in a pcall', (words: string) => words],
  ['7.0', (words: string) => `${words} script: b5f25a30db5665b0927a1bed09fced8453b86bf7, on @user_script:1.`],
  ['Valkey 9', (words: string) => `${words} script: on @user_script:1.`],
])('%s', (_version, form) => {
  test.each([
    WRONGTYPE,
    'ERR value is not a valid float',
    'ERR min or max is not a float',
    'ERR string exceeds maximum allowed size (proto-max-bulk-len)',
  ])('%s is about the data', (words) => {
    expect(wordsOf(form(words))).toBe(words)
    expect(isAboutTheData(wordsOf(form(words)))).toBe(true)
  })

  test.each([
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    'NOREPLICAS Not enough good replicas to write.',
    'MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk.',
    'LOADING Redis is loading the dataset in memory',
    'NOPERM this user has no permissions to access one of the channels used as arguments',
    "The user executing the script can't publish to the channel mentioned in the command",
    "ERR The user executing the script can't publish to the channel mentioned in the command",
    'ERR ACL failure in script: No permissions to access a channel',
    "ERR ACL failure in script: User WRONGTYPE has no permissions to run the 'zadd' command",
    'ERR Unknown Redis command called from script',
    "ERR invalid expire time in 'expire' command",
    'CROSSSLOT Keys in request do not hash to the same slot',
    'attempt to concatenate a nil value',
    'ERR something new, not WRONGTYPE ',
    '',
  ])('%s is Redis’s state', (words) => {
    expect(isAboutTheData(wordsOf(form(words)))).toBe(false)
    expect(() => readScriptReply([0, 0, 1, form(words)], 1)).toThrow(RefusedError)
  })
})

test('one device of many that meets Redis’s state fails the call: nothing of it is a dead letter', () => {
  expect(() => readScriptReply([0, 0, 1, WRONGTYPE, 2, 'OOM command not allowed'], 2)).toThrow('OOM')
})

test.each([
  ["READONLY You can't write against a read only replica.", true],
  ['MASTERDOWN Link with MASTER is down', true],
  ['LOADING Redis is loading the dataset in memory', true],
  ['NOREPLICAS Not enough good replicas to write.', true],
  ['no reply within 5 s', true],
  ['unexpected reply', true],
  ['ERR this instance has been moved', true],
  ["OOM command not allowed when used memory > 'maxmemory'.", false],
  ['MISCONF Redis is configured to save RDB snapshots', false],
  ['NOPERM No permissions to access a key', false],
])('%s: a new connection may help: %s', (words, expected) => {
  expect(needsNewConnection(words)).toBe(expected)
})

test('words of any length are cut', () => {
  expect(wordsOf('x'.repeat(1_000_000)).length).toBeLessThanOrEqual(300)
})
