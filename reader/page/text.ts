// Figures, times and payloads as people read them. Pure.
const THOUSANDS = new Intl.NumberFormat('en-GB')
const CLOCK = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const DATE = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' })
const DAY_S = 86_400
const UNITS: [string, number][] = [
  ['d', DAY_S],
  ['h', 3600],
  ['min', 60],
  ['s', 1],
]

/** A whole number, `98,312`; a dash where it is not known. */
export const count = (value: number | null | undefined): string => (value == null ? '–' : THOUSANDS.format(value))

/** A number for each second: `1,004`, below ten with one decimal. */
export function rate(value: number | null | undefined): string {
  if (value == null) return '–'
  return value > 0 && value < 9.95 ? value.toFixed(1) : THOUSANDS.format(Math.round(value))
}

/** `2 s`, `3 min`, `5 h`, `4 d`: whole units, rounded down. */
export function age(seconds: number): string {
  const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? ['s', 1]
  return `${Math.max(Math.floor(seconds / size), 0)} ${unit}`
}

export const bytes = (value: number): string =>
  value < 1024 ? `${value} B` : `${(value / 1024).toFixed(value < 10_240 ? 1 : 0)} KB`

/** Unix seconds as the time of day, with the date where it is not today. */
export function clock(seconds: number, nowSeconds: number): string {
  const at = new Date(seconds * 1000)
  const isToday = at.toDateString() === new Date(nowSeconds * 1000).toDateString()
  return isToday ? CLOCK.format(at) : `${DATE.format(at)}, ${CLOCK.format(at)}`
}

/** JSON on lines, with two spaces for each depth; each number and string stays as it was written. */
export function indented(json: string): string {
  let depth = 0
  const line = () => `\n${'  '.repeat(Math.min(depth, 40))}`
  const parts = json.match(/"(?:[^"\\]|\\.)*"|[^\s"[\]{},:]+|[[\]{},:]/g) ?? []
  return parts
    .map((part, index) => {
      const isEmpty = (part === '{' || part === '[') && /^[\]}]$/.test(parts[index + 1] ?? '')
      if (isEmpty) return part
      if (part === '{' || part === '[') {
        depth++
        return part + line()
      }
      if (part === '}' || part === ']') {
        if (/^[[{]$/.test(parts[index - 1] ?? '')) return part
        depth--
        return line() + part
      }
      if (part === ',') return part + line()
      return part === ':' ? ': ' : part
    })
    .join('')
}

/** A value's text for a cell: a string without its quotes, anything else as it was written. */
export const plain = (json: string): string => (json.startsWith('"') ? (JSON.parse(json) as string) : json)
