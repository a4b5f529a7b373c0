import fc from 'fast-check'
import { expect, test } from 'vitest'
import { memberText, withMember } from './json-text.js'

test('a member comes out as it was written', () => {
  const text = '{ "a" : 1.10 , "result":{"x":[12345678901234567890, "}\\"]"]} ,"b":null}'
  expect(memberText(text, 'a')).toBe('1.10')
  expect(memberText(text, 'result')).toBe('{"x":[12345678901234567890, "}\\"]"]}')
  expect(memberText(text, 'b')).toBe('null')
  expect(memberText(text, 'c')).toBeUndefined()
  expect(memberText('{}', 'a')).toBeUndefined()
  expect(memberText('{"a":1,"a":2}', 'a')).toBe('2')
  expect(memberText('{"\\u0061":true}', 'a')).toBe('true')
  expect(memberText(`{"result":${'['.repeat(20_000)}${']'.repeat(20_000)}}`, 'result')).toHaveLength(40_000)
})

test('whatever the object: each member is what JSON.parse finds, and one more changes none', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.nat(3), fc.string(), (object, indent, name) => {
      const text = JSON.stringify(object, null, indent)
      for (const [key, value] of Object.entries(object))
        expect(JSON.parse(memberText(text, key) ?? '')).toEqual(JSON.parse(JSON.stringify(value)))
      expect(JSON.parse(withMember(text, name, '"added"'))).toEqual(
        JSON.parse(JSON.stringify({ ...object, [name]: 'added' })),
      )
    }),
  )
})
