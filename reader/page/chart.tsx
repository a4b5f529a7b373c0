// A field over time: the band from min to max, the average in it, and the same buckets as a table. uPlot comes when the
// first chart is shown.
import { type Signal, useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type uPlot from 'uplot'
import type { Plot } from './device'
import { rangeOf, type Series } from './series'
import type { Store } from './store'
import { clock } from './text'

const HEIGHT_PX = 104
const TABLE_ROWS = 120 // the newest; all of them are in the export

type ChartProps = { field: string; plot: Signal<Plot | null>; span: string; store: Store }

export function Chart({ field, plot, span, store }: ChartProps) {
  const isTable = useSignal(false)
  const pointed = useSignal<number | null>(null)
  const series = plot.value?.fields.get(field)
  const range = series && rangeOf(series)
  const words = range
    ? `${field}, last ${range.last}, ${range.min} to ${range.max} in ${span}`
    : `${field}, no values in ${span}`
  const index = pointed.value
  return (
    <figure class="chart">
      <figcaption>
        <span class="name" title={field}>
          {field}
        </span>
        <output class="muted">
          {index !== null && series ? pointWords(series, index, store) : range && `${range.min} to ${range.max}`}
        </output>
        <strong>{range?.last ?? '–'}</strong>
        <button
          type="button"
          class="quiet small"
          aria-label={`Show ${field} as a ${isTable.value ? 'chart' : 'table'}`}
          onClick={() => {
            isTable.value = !isTable.value
          }}
        >
          {isTable.value ? 'Chart' : 'Table'}
        </button>
      </figcaption>
      {isTable.value && series ? (
        <Buckets field={field} series={series} store={store} />
      ) : (
        <Canvas series={series} words={words} pointed={pointed} />
      )}
    </figure>
  )
}

function pointWords(series: Series, index: number, store: Store): string {
  const at = clock(series.time[index] ?? 0, store.now.peek())
  const [min, max] = [series.min[index], series.max[index]]
  if (min == null) return `${at}  no value`
  return `${at}  ${min === max ? min : `${min} to ${max}`}`
}

function Canvas({
  series,
  words,
  pointed,
}: {
  series: Series | undefined
  words: string
  pointed: Signal<number | null>
}) {
  const box = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot>(undefined)
  const newest = useRef(series)
  newest.current = series

  useEffect(() => {
    let isGone = false
    const dark = matchMedia('(prefers-color-scheme: dark)')
    const build = async () => {
      const { default: UPlot } = await import('uplot')
      const target = box.current
      if (isGone || !target) return
      plot.current?.destroy()
      plot.current = new UPlot(optionsOf(target, pointed), dataOf(newest.current), target)
    }
    const recolour = () => {
      void build()
    }
    const observer = new ResizeObserver(([entry]) => {
      if (entry) plot.current?.setSize({ width: Math.floor(entry.contentRect.width), height: HEIGHT_PX })
    })
    observer.observe(box.current as HTMLDivElement)
    dark.addEventListener('change', recolour)
    void build()
    return () => {
      isGone = true
      dark.removeEventListener('change', recolour)
      observer.disconnect()
      plot.current?.destroy()
    }
  }, [])
  useEffect(() => plot.current?.setData(dataOf(series)), [series])

  const step = (event: KeyboardEvent) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
    const count = series?.time.length ?? 0
    if (by === undefined || count === 0) return
    event.preventDefault()
    const index = Math.min(Math.max((pointed.peek() ?? count) + by, 0), count - 1)
    pointed.value = index
    const left = plot.current?.valToPos(series?.time[index] ?? 0, 'x') ?? 0
    plot.current?.setCursor({ left, top: HEIGHT_PX / 2 }, false)
  }
  return (
    <div
      ref={box}
      class="canvas"
      role="img"
      aria-label={words}
      tabIndex={0}
      onKeyDown={step}
      onBlur={() => {
        pointed.value = null
      }}
    />
  )
}

const numbersOf = (texts: (string | null)[]) => texts.map((text) => (text === null ? null : Number(text)))
const dataOf = (series: Series | undefined): uPlot.AlignedData =>
  series ? [series.time, numbersOf(series.max), numbersOf(series.min), series.avg] : [[], [], [], []]

function optionsOf(box: HTMLElement, pointed: Signal<number | null>): uPlot.Options {
  const style = getComputedStyle(box)
  const colour = (name: string) => style.getPropertyValue(name).trim()
  const axis = {
    stroke: colour('--muted'),
    grid: { stroke: colour('--line'), width: 1 },
    ticks: { show: false },
    font: `11px ${style.fontFamily}`,
  }
  const edge = { stroke: 'transparent', width: 0, points: { show: false } }
  return {
    width: box.clientWidth,
    height: HEIGHT_PX,
    legend: { show: false },
    padding: [8, 4, 0, 0],
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
    scales: { y: { range: (_plot, min, max) => roomAround(min, max) } },
    axes: [
      { ...axis, size: 24, space: 70, values: (_plot, times) => times.map((time) => clock(time, time).slice(0, 5)) },
      { ...axis, size: 48, space: 28 },
    ],
    series: [{}, edge, edge, { stroke: colour('--accent'), width: 1.5, spanGaps: true, points: { size: 4 } }],
    bands: [{ series: [1, 2], fill: colour('--band') }],
    hooks: {
      setCursor: [
        ({ cursor }) => {
          pointed.value = cursor.idx ?? null
        },
      ],
    },
  }
}

/** A little air above and below; a line that does not move stands in the middle. */
function roomAround(min: number | null, max: number | null): [number, number] {
  if (min === null || max === null) return [0, 1]
  const room = max === min ? Math.abs(max) * 0.1 || 1 : (max - min) * 0.12
  return [min - room, max + room]
}

function Buckets({ field, series, store }: { field: string; series: Series; store: Store }) {
  const indexes = series.time.map((_, index) => index).filter((index) => series.last[index] !== null)
  return (
    <div class="buckets" tabIndex={0} role="region" aria-label={`${field} as a table`}>
      <table>
        <thead>
          <tr>
            {['from', 'last', 'min', 'max', 'average', 'readings'].map((title) => (
              <th key={title} scope="col">
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {indexes
            .slice(-TABLE_ROWS)
            .reverse()
            .map((index) => (
              <tr key={series.time[index]}>
                <th scope="row">{clock(series.time[index] as number, store.now.peek())}</th>
                <td>{series.last[index]}</td>
                <td>{series.min[index]}</td>
                <td>{series.max[index]}</td>
                <td>{Number((series.avg[index] ?? 0).toPrecision(6))}</td>
                <td>{series.count[index]}</td>
              </tr>
            ))}
        </tbody>
      </table>
    </div>
  )
}
