import fc from 'fast-check'
import { expect, test } from 'vitest'
import { age, bytes, count, indented, plain, rate } from './text'

test('figures', () => {
  expect([0, 98_312, null, undefined].map(count)).toEqual(['0', '98,312', '–', '–'])
  expect([0, 0.04, 0.96, 9.94, 9.95, 1003.6, null].map(rate)).toEqual(['0', '0.0', '1.0', '9.9', '10', '1,004', '–'])
  expect([-3, 0, 59.9, 60, 3599, 3600, 86_400, 1e6].map(age)).toEqual([
    '0 s',
    '0 s',
    '59 s',
    '1 min',
    '59 min',
    '1 h',
    '1 d',
    '11 d',
  ])
  expect([0, 1023, 1024, 20_480].map(bytes)).toEqual(['0 B', '1023 B', '1.0 KB', '20 KB'])
})

test('JSON on lines changes white space alone', () => {
  expect(indented('{"a":12345678901234567890,"b":[1.10,{"c":"x, {y}: \\""}],"d":{},"e":[]}')).toBe(
    `{\n  "a": 12345678901234567890,\n  "b": [\n    1.10,\n    {\n      "c": "x, {y}: \\""\n    }\n  ],\n  "d": {},\n  "e": []\n}`,
  )
  fc.assert(
    fc.property(fc.json(), (text) => {
      expect(JSON.parse(indented(text))).toEqual(JSON.parse(text))
      expect(indented(text).replace(/\s/g, '')).toBe(text.replace(/\s/g, ''))
    }),
  )
})

test('a string in a cell stands without its quotes', () => {
  expect(['"a\\u00fcb"', '1.10', 'true', '{"a":1}'].map(plain)).toEqual(['aüb', '1.10', 'true', '{"a":1}'])
})
