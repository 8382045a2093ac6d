import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Declaration } from './metric-declarations/declaration.ts'
import {
  type CounterLabels,
  type CounterName,
  declarations,
  type GaugeLabels,
  type GaugeName,
  type HistogramLabels,
  type HistogramName,
} from './metric-declarations.ts'
import type { MetricLines } from './metric-lines.ts'
import { createTally, type Totals } from './metric-totals.ts'

/** What a process counts. The web tier shows its own when it is asked; a worker's are taken, and shown there too. */
export interface Metrics {
  count<Name extends CounterName>(name: Name, labels: CounterLabels<Name>, by?: number): void
  set<Name extends GaugeName>(name: Name, labels: GaugeLabels<Name>, value: number): void
  observe<Name extends HistogramName>(name: Name, labels: HistogramLabels<Name>, value: number): void
  /** What was counted and observed since the last call. */
  take(): Totals
  /**
   * Prometheus' text format, with the metrics of the Node process (`process_*`, `nodejs_*`).
   *
   * @param others samples of other processes, which come under the same names
   */
  text(others?: MetricLines): Promise<string>
  readonly contentType: string
}

/** One for a process. Another one shares nothing with it. */
export function createMetrics(): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const counters = new Map<string, Counter>()
  const gauges = new Map<string, Gauge>()
  const histograms = new Map<string, Histogram>()
  const declared = new Map<string, Declaration>()
  for (const each of declarations as readonly Declaration[]) {
    declared.set(each.name, each)
    const common = { name: each.name, help: each.help, labelNames: each.labels, registers: [registry] }
    if (each.type === 'counter') counters.set(each.name, new Counter(common))
    else if (each.type === 'gauge') gauges.set(each.name, new Gauge(common))
    else {
      const buckets = each.buckets ? { buckets: [...each.buckets] } : {}
      histograms.set(each.name, new Histogram({ ...common, ...buckets }))
    }
  }
  const tally = createTally()
  const valuesOf = (name: string, labels: Record<string, string>): string[] =>
    (declared.get(name)?.labels ?? []).map((label) => labels[label] ?? '')

  return {
    count: (name, labels, by = 1) => {
      counters.get(name)?.inc(labels, by)
      tally.count(name, valuesOf(name, labels), by)
    },
    set: (name, labels, value) => gauges.get(name)?.set(labels, value),
    observe: (name, labels, value) => {
      histograms.get(name)?.observe(labels, value)
      tally.observe(name, valuesOf(name, labels), { value, bounds: declared.get(name)?.buckets ?? [] })
    },
    take: tally.take,
    text: (others) => textOf(registry, others),
    contentType: registry.contentType,
  }
}

async function textOf(registry: Registry, others: MetricLines | undefined): Promise<string> {
  if (!others) return registry.metrics()
  // All samples of a metric have to stand together, under one heading.
  const blocks = registry
    .getMetricsAsArray()
    .map(async ({ name }) => [await registry.getSingleMetricAsString(name), ...others.of(name)].join('\n'))
  return `${(await Promise.all(blocks)).join('\n\n')}\n`
}
