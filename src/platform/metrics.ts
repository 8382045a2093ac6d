import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

interface Declaration {
  name: string
  type: 'counter' | 'gauge' | 'histogram'
  /** As it stands in docs/metrics.md. */
  help: string
  labels: readonly string[]
  /** Upper bounds of a histogram's buckets. */
  buckets?: readonly number[]
}

const runSeconds = [0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 600, 3_600]

/**
 * Every metric of Baton, also those of other modules: a test keeps the table in docs/metrics.md equal to it.
 * Labels have few values by nature (names that are defined, outcomes): never an id.
 */
export const declarations = [
  {
    name: 'baton_jobs_started_total',
    type: 'counter',
    help: 'Runs of jobs that began.',
    labels: ['job'],
  },
  {
    name: 'baton_jobs_finished_total',
    type: 'counter',
    help: 'Runs of jobs that ended: completed, failed, retried, snoozed, cancelled, interrupted or lost.',
    labels: ['job', 'outcome'],
  },
  {
    name: 'baton_job_duration_seconds',
    type: 'histogram',
    help: 'How long runs took, from the start of the handler to its end.',
    labels: ['job'],
    buckets: runSeconds,
  },
  {
    name: 'baton_jobs_interrupted_total',
    type: 'counter',
    help: 'Runs that went back to the queue without an attempt used, by what interrupted them.',
    labels: ['job', 'reason'],
  },
  {
    name: 'baton_jobs_left_behind_total',
    type: 'counter',
    help: 'Handlers that ignored their signal and were left to themselves, their runs fenced.',
    labels: ['job'],
  },
  {
    name: 'baton_jobs_active',
    type: 'gauge',
    help: 'Jobs under way in this process.',
    labels: [],
  },
] as const satisfies readonly Declaration[]

type Declared = (typeof declarations)[number]
type NameOf<Type extends Declaration['type']> = Extract<Declared, { type: Type }>['name']
type LabelsOf<Name> = Record<Extract<Declared, { name: Name }>['labels'][number], string>

export interface Metrics {
  count<Name extends NameOf<'counter'>>(name: Name, labels: LabelsOf<Name>, by?: number): void
  set<Name extends NameOf<'gauge'>>(name: Name, labels: LabelsOf<Name>, value: number): void
  observe<Name extends NameOf<'histogram'>>(name: Name, labels: LabelsOf<Name>, value: number): void
  /** Prometheus' text format, with the metrics of the Node process (`process_*`, `nodejs_*`). */
  text(): Promise<string>
  readonly contentType: string
}

/** One for a process. Another one shares nothing with it. */
export function createMetrics(): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const counters = new Map<string, Counter>()
  const gauges = new Map<string, Gauge>()
  const histograms = new Map<string, Histogram>()
  for (const each of declarations as readonly Declaration[]) {
    const common = { name: each.name, help: each.help, labelNames: each.labels, registers: [registry] }
    if (each.type === 'counter') counters.set(each.name, new Counter(common))
    else if (each.type === 'gauge') gauges.set(each.name, new Gauge(common))
    else {
      const buckets = each.buckets ? { buckets: [...each.buckets] } : {}
      histograms.set(each.name, new Histogram({ ...common, ...buckets }))
    }
  }
  return {
    count: (name, labels, by = 1) => counters.get(name)?.inc(labels, by),
    set: (name, labels, value) => gauges.get(name)?.set(labels, value),
    observe: (name, labels, value) => histograms.get(name)?.observe(labels, value),
    text: () => registry.metrics(),
    contentType: registry.contentType,
  }
}
