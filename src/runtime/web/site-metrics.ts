import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { readSyncFigures, type SyncFigures } from '../../domain/sync/sync-view.ts'
import type { Log } from '../../platform/log.ts'
import { createMetricLines, type MetricLines } from '../../platform/metric-lines.ts'
import type { Queryable } from '../../platform/postgres/postgres.ts'
import { type MeasuredNode, readNodeMetrics } from '../../platform/processes/node-metrics.ts'
import { type QueuesReading, readQueueFigures } from '../../platform/queues/queue-figures.ts'

/** What is true of the whole site, for whoever asks this process: its workers have no address to ask. */
export interface SiteMetrics {
  /** As of now. What cannot be read is left out: a gauge that stands still looks like good news. */
  read(): Promise<MetricLines>
}

export interface SiteMetricsOptions {
  postgres: Queryable
  /** Queues that are shown also when nothing is in them. */
  queues: readonly string[]
  clock: Clock
  log: Log
}

/**
 * However many ask: the rows of nodes are read this often at most, ms. Shorter than anybody's interval, since two web
 * processes with readings of different age would let a counter go back.
 */
const nodesMs = 500
/** The same for the ledger, whose counting costs more. */
const queuesMs = 5_000

export function createSiteMetrics(options: SiteMetricsOptions): SiteMetrics {
  const { postgres, queues, clock, log } = options
  const tolerant =
    <T>(what: string, read: () => Promise<T>) =>
    (): Promise<T | undefined> =>
      read().catch((error: unknown) => {
        log.warn({ reason: messageOf(error) }, `${what} could not be read for the metrics`)
        return undefined
      })
  const readNodes = atMostEvery(
    nodesMs,
    clock,
    tolerant('The nodes', () => readNodeMetrics(postgres)),
  )
  const readQueues = atMostEvery(
    queuesMs,
    clock,
    tolerant('The queues', () => readQueueFigures(postgres, queues)),
  )
  const readSync = atMostEvery(
    queuesMs,
    clock,
    tolerant('The replicas', () => readSyncFigures(postgres)),
  )
  return {
    read: async () => {
      const [nodes, figures, sync] = await Promise.all([readNodes(), readQueues(), readSync()])
      const lines = createMetricLines()
      if (nodes) addNodes(lines, nodes)
      if (figures) addQueues(lines, figures)
      if (sync?.leads) addSync(lines, sync)
      return lines
    },
  }
}

function atMostEvery<T>(everyMs: number, clock: Clock, read: () => Promise<T>): () => Promise<T> {
  let readAt = Number.NEGATIVE_INFINITY
  let last: Promise<T> | undefined
  return () => {
    if (last && clock.monotonicMs() - readAt < everyMs) return last
    readAt = clock.monotonicMs()
    last = read()
    return last
  }
}

function addQueues(lines: MetricLines, { queues }: QueuesReading): void {
  for (const { queue, oldestWaitingMs, ...figures } of queues) {
    for (const state of ['waiting', 'delayed', 'active', 'failed'] as const) {
      lines.gauge('baton_queue_jobs', { queue, state }, figures[state])
    }
    lines.gauge('baton_queue_oldest_waiting_seconds', { queue }, oldestWaitingMs / 1_000)
  }
}

function addSync(lines: MetricLines, { pending, replicas }: SyncFigures): void {
  lines.gauge('baton_sync_pending_changes', {}, pending)
  for (const { name: replica, lag, quarantine, fuses, verifyAgeSeconds, differing } of replicas) {
    lines.gauge('baton_sync_lag_changes', { replica }, lag.changes)
    lines.gauge('baton_sync_lag_seconds', { replica }, lag.seconds)
    for (const kind of ['failed', 'mismatch', 'held'] as const) {
      lines.gauge('baton_sync_quarantine', { replica, kind }, quarantine[kind])
    }
    lines.gauge('baton_sync_fuses_open', { replica }, fuses)
    if (verifyAgeSeconds !== undefined)
      lines.gauge('baton_sync_verify_age_seconds', { replica }, verifyAgeSeconds)
    if (differing !== undefined) lines.gauge('baton_sync_verify_differing', { replica }, differing)
  }
}

function addNodes(lines: MetricLines, nodes: MeasuredNode[]): void {
  const alike = Map.groupBy(nodes, ({ kind, state, dead }) => `${kind}\n${dead ? 'dead' : state}`)
  for (const [key, group] of alike) {
    const [kind = '', state = ''] = key.split('\n')
    lines.gauge('baton_nodes', { kind, state }, group.length)
  }
  for (const node of nodes) {
    // A name for people, and new at each start: two lives of one worker are two series.
    const name = `${node.host}.${node.id.slice(0, 8)}`
    if (node.metrics) lines.totals(node.metrics.totals, name)
    if (!node.dead && node.kind === 'worker') addWorker(lines, name, node)
  }
}

function addWorker(lines: MetricLines, node: string, { children, metrics }: MeasuredNode): void {
  for (const [state, group] of Map.groupBy(children, (child) => child.state)) {
    lines.gauge('baton_worker_children', { node, state }, group.length)
  }
  // During a roll a slot has two.
  for (const [slot, group] of Map.groupBy(children, (child) => child.slot)) {
    const delayMs = Math.max(...group.map((child) => child.loopDelayMs ?? 0))
    lines.gauge('baton_worker_event_loop_delay_seconds', { node, slot: String(slot) }, delayMs / 1_000)
  }
  const active = children.reduce((sum, child) => sum + child.active, 0)
  lines.gauge('baton_jobs_active', { node }, active)
  lines.gauge('baton_worker_crash_loops', { node }, metrics?.crashLoops ?? 0)
}
