// What the topics under MQTT_TOPIC_PREFIX mean, decided by comparing whole levels: a broker delivers what it likes, such
// as what an old subscription of the session matches. Pure.

export type TopicKind = 'data' | 'hello' | 'commands' | 'commands/ack'

const MAX_PREFIX_BYTES = 1000

/** Reads `{prefix}/{deviceId}/{kind}`; null for every other topic. The device id is not checked and may be empty. */
export function parseTopic(topic: string, prefix: string): { deviceId: string; kind: TopicKind } | null {
  const idStart = prefix.length + 1
  const idEnd = topic.indexOf('/', idStart)
  if (idEnd === -1 || topic[idStart - 1] !== '/' || !topic.startsWith(prefix)) return null
  const kind = topic.slice(idEnd + 1)
  return isKind(kind) ? { deviceId: topic.slice(idStart, idEnd), kind } : null
}

const isKind = (text: string): text is TopicKind =>
  text === 'data' || text === 'hello' || text === 'commands' || text === 'commands/ack'

/** Why `prefix` cannot stand before `/{deviceId}/data`, in words for whoever configures it; null where it can. */
export function prefixProblem(prefix: string): string | null {
  if (prefix.startsWith('$share/'))
    return 'must not be a shared subscription: $share keeps no order for a device when a member leaves or returns'
  if (prefix.startsWith('$')) return 'must not begin with $, which brokers keep for themselves'
  if (/[+#]/.test(prefix)) return 'must be topic levels without the wildcards + and #'
  if (prefix.split('/').includes('')) return 'must not have an empty level, nor begin or end with /'
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
  if (/[\s\u0000-\u001f\u007f-\u009f]/.test(prefix)) return 'must not contain spaces or control characters'
  if (Buffer.byteLength(prefix) > MAX_PREFIX_BYTES) return `must have at most ${MAX_PREFIX_BYTES} bytes`
  return null
}
