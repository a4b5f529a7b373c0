import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createCsv, formatOf, ndjsonLine } from './formats.js'

test.each([
  [undefined, 'json'],
  ['*/*', 'json'],
  ['text/csv', 'csv'],
  ['application/x-ndjson', 'ndjson'],
  ['text/html, application/xhtml+xml, */*;q=0.8', 'json'],
  ['application/json;q=0.5, text/csv; q=0.9', 'csv'],
  ['text/csv;q=0, application/*', 'json'],
  ['TEXT/CSV', 'csv'],
])('Accept: %s', (accept, format) => expect(formatOf(accept)).toBe(format))

test.each(['text/html', 'image/png, text/csv;q=0', '', 'text/csv;q=x'])('Accept: %s is not acceptable', (accept) =>
  expect(() => formatOf(accept)).toThrow(expect.objectContaining({ statusCode: 406 })))

test('no cell is a formula, numbers keep their digits', () => {
  const { head, row } = createCsv(['a', 'b.c'])
  expect(head).toBe('device_id,timestamp,a,b.c\r\n')
  const line = (payload: string, deviceId = 'd') => row({ deviceId, timestamp: '1.000001', payload })
  expect(line('{"a":-1.50,"b":{"c":1E+400}}')).toBe('d,1.000001,-1.50,1E+400\r\n')
  for (const text of ['=1+1', '+1', '-1', '@a', '\ta', '\ra'])
    expect(line(JSON.stringify({ a: text })), text).toMatch(/^d,1\.000001,"?'/)
  expect(line('{"a":true,"b":{"c":[1, "x"]}}', '@id,')).toBe(`"'@id,",1.000001,true,"[1, ""x""]"\r\n`)
  expect(line('{"a":null}')).toBe('d,1.000001,,\r\n')
  const whole = createCsv(undefined)
  expect(whole.row({ deviceId: 'd', timestamp: '1', payload: '-5' })).toBe('d,1,-5\r\n')
  expect(whole.row({ deviceId: 'd', timestamp: '1', payload: '\n{"a":\r\n1}' })).toBe('d,1," {""a"":  1}"\r\n')
})

test('whatever the payload: a row is one line that holds it, and so is a line of NDJSON', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.nat(2), (value, indent) => {
      const payload = JSON.stringify(value, null, indent)
      const line = ndjsonLine(payload)
      expect(line.indexOf('\n')).toBe(line.length - 1)
      expect(JSON.parse(line)).toEqual(JSON.parse(payload))
      const row = createCsv(undefined).row({ deviceId: 'd', timestamp: '1', payload })
      const cell = row.slice('d,1,'.length, -2)
      expect(row).not.toMatch(/\n./)
      expect(JSON.parse(cell.startsWith('"') ? cell.slice(1, -1).replaceAll('""', '"') : cell)).toEqual(
        JSON.parse(payload),
      )
    }),
  )
})
