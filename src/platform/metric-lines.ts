import type { Declaration } from './metric-declarations/declaration.ts'
import { declarations, type GaugeLabels, type GaugeName } from './metric-declarations.ts'
import { labelsOf, type Totals } from './metric-totals.ts'

/** Samples that other processes have counted, as lines of Prometheus' text format by their metric. */
export interface MetricLines {
  gauge<Name extends GaugeName>(name: Name, labels: GaugeLabels<Name>, value: number): void
  /** Counters and histograms of a worker, each line with the label `node`. */
  totals(totals: Totals, node: string): void
  of(metric: string): readonly string[]
}

type Labels = Record<string, string>

const declared: ReadonlyMap<string, Declaration> = new Map(declarations.map((each) => [each.name, each]))

export function createMetricLines(): MetricLines {
  const lines = new Map<string, string[]>()
  const add = (name: string, more: string[]): void => {
    lines.set(name, [...(lines.get(name) ?? []), ...more])
  }
  return {
    gauge: (name, labels, value) => add(name, [lineOf(name, labels, value)]),
    totals: (totals, node) => {
      for (const [name, series] of Object.entries(totals)) {
        const metric = declared.get(name)
        // Written by another release: what this one does not declare has no type here.
        if (!metric || metric.type === 'gauge') continue
        for (const [key, numbers] of Object.entries(series))
          add(name, linesOfSeries(metric, { key, numbers, node }))
      }
    },
    of: (metric) => lines.get(metric) ?? [],
  }
}

interface Series {
  key: string
  numbers: number[]
  node: string
}

function linesOfSeries(metric: Declaration, { key, numbers, node }: Series): string[] {
  const values = labelsOf(key, metric.labels.length)
  if (values.length !== metric.labels.length) return []
  const labels: Labels = Object.fromEntries(metric.labels.map((label, index) => [label, values[index] ?? '']))
  labels['node'] = node
  if (metric.type === 'counter') return [lineOf(metric.name, labels, numbers[0] ?? 0)]
  return linesOfHistogram(metric, labels, numbers)
}

function linesOfHistogram({ name, buckets = [] }: Declaration, labels: Labels, numbers: number[]): string[] {
  const [sum = 0, ...counts] = numbers
  // Other bounds than ours: those of another release.
  if (counts.length > buckets.length + 1) return []
  let below = 0
  const lines = buckets.map((bound, index) => {
    below += counts[index] ?? 0
    return lineOf(`${name}_bucket`, { ...labels, le: String(bound) }, below)
  })
  const count = below + (counts[buckets.length] ?? 0)
  return [
    ...lines,
    lineOf(`${name}_bucket`, { ...labels, le: '+Inf' }, count),
    lineOf(`${name}_sum`, labels, sum),
    lineOf(`${name}_count`, labels, count),
  ]
}

function lineOf(name: string, labels: Labels, value: number): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escape(text)}"`)
  return `${name}${pairs.length > 0 ? `{${pairs.join(',')}}` : ''} ${value}`
}

const escape = (text: string): string =>
  text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('"', '\\"')
