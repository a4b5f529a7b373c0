import { expect, test } from 'vitest'
import { describe } from './errors.js'

test.each([
  [new Error('connect ECONNREFUSED 127.0.0.1:1'), 'connect ECONNREFUSED 127.0.0.1:1'],
  [Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' }), 'ECONNREFUSED'],
  [
    new Error(
      'Connection error: 00E7C0F7D17F0000:error:0A00045C:SSL routines:ssl3_read_bytes:tlsv13 alert certificate required:../deps/openssl/ssl/record/rec_layer_s3.c:1605:SSL alert number 116\n',
    ),
    'Connection error: tlsv13 alert certificate required',
  ],
  ['text', 'text'],
  [new Error('F'.repeat(200_000)), 'F'.repeat(500)],
])('%s', (error, words) => {
  expect(describe(error)).toBe(words)
})
