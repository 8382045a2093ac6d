export interface Declaration {
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
  {
    name: 'baton_body_store_failures_total',
    type: 'counter',
    help: 'Requests to a store over HTTP that had no answer, or one that says that nobody is there.',
    labels: ['store'],
  },
  {
    name: 'baton_body_store_refusals_total',
    type: 'counter',
    help: 'Requests to a store over HTTP that were not sent, since it was away a moment ago.',
    labels: ['store'],
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
  {
    name: 'baton_gateway_requests_total',
    type: 'counter',
    help: 'Requests that the gateway has passed on: over (answered, or ended by a client or target), or why not.',
    labels: ['outcome'],
  },
  {
    name: 'baton_gateway_requests',
    type: 'gauge',
    help: 'Requests under way through the gateway, by the state of their target.',
    labels: ['state'],
  },
  {
    name: 'baton_gateway_streams',
    type: 'gauge',
    help: 'WebSockets and event streams through the gateway, by the state of their target.',
    labels: ['state'],
  },
  {
    name: 'baton_gateway_sessions',
    type: 'gauge',
    help: 'Sessions that were seen within GATEWAY_IDLE_MS, by the state of their target.',
    labels: ['state'],
  },
  {
    name: 'baton_gateway_targets',
    type: 'gauge',
    help: 'Targets of the gateway, by state.',
    labels: ['state'],
  },
  {
    name: 'baton_gateway_sessions_moved_total',
    type: 'counter',
    help: 'Sessions whose target was gone, and that went on with the current one.',
    labels: [],
  },
  {
    name: 'baton_gateway_upgrades_total',
    type: 'counter',
    help: 'Revisions that were started, the first included: done or failed.',
    labels: ['result'],
  },
  {
    name: 'baton_gateway_target_deaths_total',
    type: 'counter',
    help: 'Targets that ended by themselves, by the state in which they were.',
    labels: ['state'],
  },
  {
    name: 'baton_sync_objects_total',
    type: 'counter',
    help: 'Objects that were sent to replicas, by type and what they said: applied, current, mismatch, failed or stale.',
    labels: ['type', 'result'],
  },
  {
    name: 'baton_sync_bytes_total',
    type: 'counter',
    help: 'Characters of content of the objects that were sent to replicas, without parts and bodies.',
    labels: [],
  },
  {
    name: 'baton_sync_pending_changes',
    type: 'gauge',
    help: 'Changes of the whole site that have no position yet. Only on a site that leads.',
    labels: [],
  },
  {
    name: 'baton_sync_lag_changes',
    type: 'gauge',
    help: 'Numbered changes that a replica does not have yet.',
    labels: ['replica'],
  },
  {
    name: 'baton_sync_lag_seconds',
    type: 'gauge',
    help: 'Age of the oldest change, numbered or not, that a replica does not have yet.',
    labels: ['replica'],
  },
  {
    name: 'baton_sync_quarantine',
    type: 'gauge',
    help: 'Objects that a replica went past without them: failed, mismatch, or held by the fuse.',
    labels: ['replica', 'kind'],
  },
  {
    name: 'baton_sync_fuses_open',
    type: 'gauge',
    help: 'Plans of deletes that wait for approval.',
    labels: ['replica'],
  },
  {
    name: 'baton_sync_verify_age_seconds',
    type: 'gauge',
    help: 'Time since the last verification of a replica; absent before the first.',
    labels: ['replica'],
  },
  {
    name: 'baton_sync_verify_differing',
    type: 'gauge',
    help: 'Objects that were not the same on both sides at the last verification.',
    labels: ['replica'],
  },
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
