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
const answerSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

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
  {
    name: 'baton_http_request_duration_seconds',
    type: 'histogram',
    help: 'How long answers took, from the headers of the request to the end of the answer.',
    labels: ['method', 'route', 'status'],
    buckets: answerSeconds,
  },
  {
    name: 'baton_problems_total',
    type: 'counter',
    help: 'Requests that were answered with an error, by its code.',
    labels: ['code'],
  },
  {
    name: 'baton_jobs_accepted_total',
    type: 'counter',
    help: 'Jobs that were taken in over HTTP by this process, those that a dedupe key held off not counted.',
    labels: ['job'],
  },
  {
    name: 'baton_accept_backlog',
    type: 'gauge',
    help: 'Jobs that were asked for and are not committed yet, in this process.',
    labels: [],
  },
  {
    name: 'baton_event_streams',
    type: 'gauge',
    help: 'Event streams that are open in this process.',
    labels: [],
  },
  {
    name: 'baton_database_waiting',
    type: 'gauge',
    help: 'Callers in this process that wait for a Postgres connection.',
    labels: [],
  },
  {
    name: 'baton_jobs',
    type: 'gauge',
    help: 'Jobs in the ledger of the whole site, by state. Large numbers are estimates.',
    labels: ['state'],
  },
  {
    name: 'baton_oldest_waiting_seconds',
    type: 'gauge',
    help: 'How long the oldest due job of the whole site has waited.',
    labels: [],
  },
  {
    name: 'baton_pushes_accepted_total',
    type: 'counter',
    help: 'Pushes that were taken in by this process, by priority or normal.',
    labels: ['priority'],
  },
  {
    name: 'baton_pushes_confirmed_total',
    type: 'counter',
    help: 'Pushes that devices confirmed to this process.',
    labels: [],
  },
  {
    name: 'baton_push_delivery_seconds',
    type: 'histogram',
    help: 'From the acceptance of a push to its first delivery to a listen.',
    labels: [],
    buckets: answerSeconds,
  },
  {
    name: 'baton_push_listens',
    type: 'gauge',
    help: 'Listens that are open in this process.',
    labels: [],
  },
  {
    name: 'baton_cloud_pushes_total',
    type: 'counter',
    help: 'Cloud pushes that were tried, by provider and what came of it: accepted, gone, retry, device-limited, rejected or unsent.',
    labels: ['provider', 'result'],
  },
  {
    name: 'baton_cloud_push_seconds',
    type: 'histogram',
    help: 'How long providers took to answer.',
    labels: ['provider'],
    buckets: answerSeconds,
  },
  {
    name: 'baton_push_lateness_seconds',
    type: 'histogram',
    help: 'From the instant at which a push was due to its claim. Grows when alarms are lost or workers are short.',
    labels: [],
    buckets: answerSeconds,
  },
  {
    name: 'baton_pushes_flood_held_total',
    type: 'counter',
    help: 'Times that a device had due pushes and its flood limit put them off.',
    labels: [],
  },
  {
    name: 'baton_bodies_put_total',
    type: 'counter',
    help: 'Bodies that were sent to this process: with two copies, with one, or refused.',
    labels: ['result'],
  },
  {
    name: 'baton_bodies_got_total',
    type: 'counter',
    help: 'Bodies that this process was asked for: sent (begun, after verification) or refused, by error code.',
    labels: ['result'],
  },
  {
    name: 'baton_body_bytes_total',
    type: 'counter',
    help: 'Bytes of bodies that this process took in and sent out.',
    labels: ['direction'],
  },
  {
    name: 'baton_body_bad_copies_total',
    type: 'counter',
    help: 'Copies that were read by a repair or a scrub and were bad or missing, by store.',
    labels: ['store'],
  },
  {
    name: 'baton_body_repairs_total',
    type: 'counter',
    help: 'Bodies whose copies were all read and mended as far as possible: whole, postponed or lost.',
    labels: ['result'],
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
