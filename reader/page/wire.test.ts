import fc from 'fast-check'
import { expect, test } from 'vitest'
import { afterReading, createEventReader, type FeedEvent, olderOf, stateOf, statesPageOf } from './wire'

const readAll = (pieces: string[]) => {
  const events: FeedEvent[] = []
  const read = createEventReader((event) => events.push(event))
  for (const piece of pieces) read(piece)
  return events
}

const STREAM =
  'retry: 2000\n\nevent: open\nid: ~1.2\ndata: {"resumed":true}\n\n: a comment\n\nid: 0:1~2.2\r\nevent: update\r\ndata: {"a":"ü: 1"}\r\n\r\n' +
  'event: flow\ndata:{}\ndata: more\n\nid: ~9.9\n\nid: 1:5~9.a\nevent: update\ndata: cut'

test('events are those of the stream, wherever it is cut', () => {
  const whole = [
    { event: 'open', data: '{"resumed":true}', id: '~1.2' },
    { event: 'update', data: '{"a":"ü: 1"}', id: '0:1~2.2' },
    { event: 'flow', data: '{}\nmore', id: '0:1~2.2' },
    { event: '', data: '', id: '~9.9' },
  ]
  expect(readAll([STREAM])).toEqual(whole)
  fc.assert(
    fc.property(fc.array(fc.nat(STREAM.length)), (places) => {
      const cuts = [0, ...places.sort((a, b) => a - b), STREAM.length]
      expect(readAll(cuts.slice(1).map((end, index) => STREAM.slice(cuts[index], end)))).toEqual(whole)
    }),
  )
})

test('the older of two positions, partition by partition', () => {
  expect(olderOf('', '~1.2~Zk3fAq')).toBe('~1.2~Zk3fAq')
  expect(olderOf('~1.2~Zk3fAq', '')).toBe('~1.2~Zk3fAq')
  expect(olderOf('0:35~10.2~Zk3fAq', '~z.3~Zk3fAq')).toBe('~z.2~Zk3fAq')
  expect(olderOf('~5.5.5~Zk3fAq', '~9.1~Zk3fAq')).toBe('~5.1~Zk3fAq') // the third begins at its beginning
  expect(olderOf('~5.5~Zk3fAq', 'nonsense')).toBe('~5.5~Zk3fAq')
  expect(olderOf('~5.5~Zk3fAq', '~9.9~Other1')).toBe('~9.9~Other1')
})

const PAYLOAD = '{"serial": 12345678901234567890, "t":1.10,\n"device_id":"another","e":1E+3}'

test('states and updates keep the text that the device wrote', () => {
  const state = stateOf(
    `{"device_id":"a\\"b","payload":${PAYLOAD},"timestamp":5.000001,"position":"3:4711","online":true}`,
  )
  expect(state).toEqual({
    id: 'a"b',
    payload: PAYLOAD,
    timestamp: 5.000001,
    position: { partition: 3, offset: 4711 },
    online: true,
    isReadable: true,
  })
  const update = stateOf(`{"device_id":"a","payload":${PAYLOAD},"timestamp":5}`, '1:7~0.8')
  expect(update).toMatchObject({ payload: PAYLOAD, position: { partition: 1, offset: 7 }, online: null })
  const page = statesPageOf(
    `{"total":3,"matched":2,"position":"~1","devices":[{"device_id":"a","payload":[1,"]"],"timestamp":1,"position":null,"online":null},{"device_id":"b","error":"NOT_READABLE"}],"next":null}`,
  )
  expect(page).toMatchObject({ total: 3, matched: 2, position: '~1' })
  expect(page.devices.map(({ id, payload, isReadable }) => [id, payload, isReadable])).toEqual([
    ['a', '[1,"]"]', true],
    ['b', 'null', false],
  ])
})

test('a reading that a state has seen already changes nothing', () => {
  const at = (offset: number, partition = 0) => ({ ...stateOf('{}'), position: { partition, offset }, online: true })
  const had = at(5)
  expect(afterReading(had, at(4))).toBe(had)
  expect(afterReading(had, at(5))).toBe(had)
  expect(afterReading(had, { ...at(6), online: null })).toEqual({ ...at(6), online: true })
  expect(afterReading(had, at(0, 1)).position).toEqual({ partition: 1, offset: 0 })
})
