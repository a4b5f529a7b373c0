// The way of the data, hop by hop: how much goes, what waits, who is ready; and the strip of figures above it.
import { Fragment } from 'preact'
import { figuresOf, type Hop, hopsOf, type Ring } from './hops'
import type { Store } from './store'
import { count, rate } from './text'

const STATE_WORDS = { ready: 'ready', waiting: 'waiting', away: 'away', unknown: 'not known' }
const SPARK = { width: 120, height: 28 }
const LEAST_SPAN = 60 // seconds that a sparkline shows before it is full

export function Figures({ store }: { store: Store }) {
  const { total, isLoaded } = store.list.value
  const { online, silent } = store.counts.value
  const figures = figuresOf(store.flow.value.flow)
  const known = isLoaded ? total : null
  const items: [string, string, string, boolean][] = [
    ['online', count(online), 'online', false],
    ['known', count(known), 'known devices', false],
    ['silent', count(silent), 'silent 10 min', (silent ?? 0) > 0],
    ['rate', rate(figures.received), 'messages/s', false],
    ['lag', count(figures.lag), 'lag in Kafka', false],
    ['letters', count(figures.deadLetters), 'dead letters 5 min', (figures.deadLetters ?? 0) > 0],
  ]
  return (
    <section class="panel figures" aria-label="Figures">
      {items.map(([name, value, label, isWarning]) => (
        <div key={name} class={`figure ${isWarning ? 'warn' : ''}`}>
          <strong>{value}</strong>
          <span>{label}</span>
        </div>
      ))}
    </section>
  )
}

export function Flow({ store }: { store: Store }) {
  const hops = hopsOf(store.flow.value)
  if (!store.mayWatch.value)
    return <p class="panel inline-note flow">Your key shows its own devices only, not the platform's flow.</p>
  return (
    <section class="flow" aria-labelledby="flow-title">
      <h2 id="flow-title" class="hidden">
        Flow of the data
      </h2>
      <ol>
        {hops.map((hop, index) => (
          <Fragment key={hop.name}>
            {index > 0 && <Arrow perSecond={hop.arriving} />}
            <Node hop={hop} />
          </Fragment>
        ))}
      </ol>
    </section>
  )
}

function Arrow({ perSecond }: { perSecond: number | null }) {
  const isMoving = (perSecond ?? 0) > 0
  return (
    <li class={`arrow ${isMoving ? 'moving' : ''}`}>
      <span>
        {rate(perSecond)}
        <small>/s</small>
      </span>
      <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
        <path d="M0 4h100" />
      </svg>
    </li>
  )
}

function Node({ hop }: { hop: Hop }) {
  return (
    <li class={`panel node is-${hop.state}`}>
      <div class="node-head">
        <h3>{hop.name}</h3>
        <span class="state">
          <i class="dot" aria-hidden="true" />
          {STATE_WORDS[hop.state]}
        </span>
      </div>
      <p class="fact">
        <strong>{hop.value}</strong> <span class="muted">{hop.label}</span>
      </p>
      {hop.why !== '' ? (
        <p class="why" title={hop.why}>
          {hop.why}
        </p>
      ) : hop.lanes.length > 1 ? (
        <Lanes lanes={hop.lanes} />
      ) : (
        <Sparkline ring={hop.ring} label={`${hop.name}: ${hop.label} in five minutes`} />
      )}
    </li>
  )
}

/** The lag of each partition as a bar. */
function Lanes({ lanes }: { lanes: (number | null)[] }) {
  const most = Math.max(...lanes.map((lag) => lag ?? 0), 10)
  const words = lanes
    .map((lag, partition) => `partition ${partition}: ${lag === null ? 'not known' : count(lag)}`)
    .join(', ')
  return (
    <svg
      class="spark lanes"
      viewBox={`0 0 ${SPARK.width} ${SPARK.height}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={`Lag, ${words}`}
    >
      <title>{words}</title>
      {lanes.map((lag, index) => {
        const step = SPARK.width / lanes.length
        const height = Math.max(((lag ?? 0) / most) * SPARK.height, 2)
        return (
          <rect key={index} x={index * step} y={SPARK.height - height} width={Math.max(step - 2, 1)} height={height} />
        )
      })}
    </svg>
  )
}

function Sparkline({ ring, label }: { ring: Ring; label: string }) {
  const known = ring.filter((value) => value !== null)
  const most = Math.max(...known, 1)
  const span = Math.max(ring.length, LEAST_SPAN)
  const x = (index: number) => (((index + span - ring.length) / (span - 1)) * SPARK.width).toFixed(1)
  const y = (value: number) => (SPARK.height - 2 - (value / most) * (SPARK.height - 4)).toFixed(1)
  const points = ring.flatMap((value, index) => (value === null ? [] : [`${x(index)} ${y(value)}`]))
  const line = points.length > 1 ? `M${points.join('L')}` : ''
  const first = ring.findIndex((value) => value !== null)
  return (
    <svg
      class="spark"
      viewBox={`0 0 ${SPARK.width} ${SPARK.height}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={label}
    >
      {line !== '' && (
        <path class="under" d={`${line}L${x(ring.length - 1)} ${SPARK.height}L${x(first)} ${SPARK.height}Z`} />
      )}
      <path d={line} />
    </svg>
  )
}
