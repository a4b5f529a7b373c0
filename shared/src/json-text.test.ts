import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createFieldReader, memberText, numberFields, withMember } from './json-text.js'

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

const names = fc.string({ maxLength: 5 }).filter((name) => !name.includes('.'))
const nested = fc.dictionary(
  names,
  fc.oneof(fc.jsonValue({ maxDepth: 1 }), fc.dictionary(names, fc.jsonValue({ maxDepth: 1 }))),
)

test('fields are found within objects, as they were written', () => {
  const read = createFieldReader(['serial', 'gps.speed', 'gps', 'none', 'list.a'])
  const text =
    '{"gps" : {"speed": 1.10, "fix":{"speed":2}}, "serial":12345678901234567890, "list":[{"a":1}], "speed":3}'
  expect(read(text)).toEqual([
    '12345678901234567890',
    '1.10',
    '{"speed": 1.10, "fix":{"speed":2}}',
    undefined,
    undefined,
  ])
  expect(numberFields(text)).toEqual(['gps.speed', 'gps.fix.speed', 'serial', 'speed'])
  for (const other of ['21.5', '"x"', '[{"a":1}]', 'null', '', '{', '{"a', '{"a":', '{"a":1', '{"a":{"b":1'])
    read(other)
  expect(numberFields('21.5')).toEqual([])
})

test('whatever the object: its fields are what JSON.parse finds', () => {
  fc.assert(
    fc.property(nested, fc.nat(2), (object, indent) => {
      const text = JSON.stringify(object, null, indent)
      const plain = JSON.parse(text) as Record<string, unknown>
      const isObject = (value: unknown): value is object =>
        typeof value === 'object' && value !== null && !Array.isArray(value)
      const paths = Object.entries(plain).flatMap(([name, value]) => [
        [name, value] as const,
        ...(isObject(value) ? Object.entries(value).map(([inner, leaf]) => [`${name}.${inner}`, leaf] as const) : []),
      ])
      const found = createFieldReader(paths.map(([path]) => path))(text)
      for (const [index, [path, value]] of paths.entries())
        expect(JSON.parse(found[index] ?? 'none'), path).toEqual(value)
      const numbers = paths.filter(([, value]) => typeof value === 'number').map(([path]) => path)
      expect(numberFields(text)).toEqual(expect.arrayContaining(numbers))
    }),
  )
})
