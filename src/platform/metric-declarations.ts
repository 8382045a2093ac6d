import { bodyDeclarations } from './metric-declarations/bodies.ts'
import { answerSeconds, type Declaration } from './metric-declarations/declaration.ts'
import { gatewayDeclarations } from './metric-declarations/gateway.ts'
import { pushDeclarations } from './metric-declarations/push.ts'
import { replicationDeclarations } from './metric-declarations/replication.ts'

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
    help: 'Jobs under way, by worker.',
    labels: ['node'],
  },
  {
    name: 'baton_http_request_duration_seconds',
    type: 'histogram',
    help: 'How long answers took, from the headers of the request to the end of the answer. Status 499: its connection ended before it was out; of an event stream that is no fault, and its own status stands.',
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
    name: 'baton_queue_jobs',
    type: 'gauge',
    help: 'Jobs of the whole site that wait, are delayed, run or have failed, by queue. The first 50,000 unfinished and the first 50,000 failed are counted: beyond, an estimate from below.',
    labels: ['queue', 'state'],
  },
  {
    name: 'baton_queue_oldest_waiting_seconds',
    type: 'gauge',
    help: 'How long the oldest due job of a queue has waited.',
    labels: ['queue'],
  },
  {
    name: 'baton_reconciler_repairs_total',
    type: 'counter',
    help: 'Rows that the reconciler mended: unqueued, forgotten by the engine, overdue, released from dead runners, or pruned.',
    labels: ['kind'],
  },
  {
    name: 'baton_nodes',
    type: 'gauge',
    help: 'Processes of the site, by kind and state; dead are those that have been silent for 4 s, up to ten minutes.',
    labels: ['kind', 'state'],
  },
  {
    name: 'baton_worker_children',
    type: 'gauge',
    help: 'Children of a worker, by state. Only those that are up take jobs.',
    labels: ['node', 'state'],
  },
  {
    name: 'baton_worker_crash_loops',
    type: 'gauge',
    help: 'Places of a worker without a child, whose next fork is put off since children died early again and again.',
    labels: ['node'],
  },
  {
    name: 'baton_worker_deaths_total',
    type: 'counter',
    help: 'Children of workers that did not end in order: by a crash, or by an interruption at the deadline of a stop or a roll.',
    labels: ['loss'],
  },
  {
    name: 'baton_worker_event_loop_delay_seconds',
    type: 'gauge',
    help: 'Longest delay of the event loop of a child in the last 10 to 20 s; of one that is blocked, how long it has been silent.',
    labels: ['node', 'slot'],
  },
  ...pushDeclarations,
  ...bodyDeclarations,
  ...gatewayDeclarations,
  ...replicationDeclarations,
] as const satisfies readonly Declaration[]

type Declared = (typeof declarations)[number]
type NameOf<Type extends Declaration['type']> = Extract<Declared, { type: Type }>['name']
type LabelsOf<Name> = Record<Extract<Declared, { name: Name }>['labels'][number], string>

export type CounterName = NameOf<'counter'>
export type GaugeName = NameOf<'gauge'>
export type HistogramName = NameOf<'histogram'>
export type CounterLabels<Name extends CounterName> = LabelsOf<Name>
export type GaugeLabels<Name extends GaugeName> = LabelsOf<Name>
export type HistogramLabels<Name extends HistogramName> = LabelsOf<Name>
