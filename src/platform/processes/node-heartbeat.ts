import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { Log } from '../log.ts'
import type { Postgres } from '../postgres/postgres.ts'

/**
 * `waiting`: the queue engine does not answer its children, so none takes jobs. `standby`: the site takes no work now,
 * so there are no children.
 */
export type NodeState = 'starting' | 'waiting' | 'up' | 'quiet' | 'stopping' | 'standby'

export interface NodeChild {
  runner: string
  slot: number
  pid: number | undefined
  state: string
  /** Jobs under way. */
  active: number
  rssBytes: number
  /** How late its event loop is, ms; of older releases not known. */
  loopDelayMs?: number
}

/** What a heartbeat writes besides the time. */
export interface NodeView {
  state: NodeState
  /** A worker's children; for other processes undefined. */
  children?: NodeChild[]
  /** The runners that live. A run whose runner stands in no fresh row counts as dead. */
  runners?: string[]
  /** What it counted, as JSON: see node-metrics.ts. */
  metrics?: string
}

/** Keeps this process's row of `nodes` fresh. */
export interface NodeHeartbeat {
  /** Resolves when the row is written. @throws when Postgres cannot be reached */
  start(): Promise<void>
  /** Writes what `view` says now; resolves after the commit. While Postgres is away it goes on trying. */
  record(): Promise<void>
  /** Deletes the row, within `limitMs`; one that stays is stale soon, and pruned after a day. */
  stop(limitMs: number): Promise<void>
}

export interface NodeHeartbeatOptions {
  /** One of the process alone, so that no job's statement can keep a heartbeat waiting. */
  postgres: Postgres
  node: { id: string; kind: 'worker' | 'web' | 'gateway'; host: string; pid: number; version: string }
  view(): NodeView
  clock: Clock
  log: Log
  everyMs?: number
}

/** A node without a heartbeat for so long counts as dead (docs/protocols/jobs.md). */
export const deadMs = 4_000
const pruneEveryMs = 3_600_000
const metricsEveryMs = 2_000

const upsert = `
  INSERT INTO nodes (id, kind, host, pid, version, children, runners, state, metrics)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
  ON CONFLICT (id) DO UPDATE SET
    children = excluded.children, runners = excluded.runners, state = excluded.state, heartbeat_at = now(),
    metrics = coalesce(excluded.metrics, nodes.metrics)`
const prune = `DELETE FROM nodes WHERE heartbeat_at < now() - interval '1 day'`

export function createNodeHeartbeat(options: NodeHeartbeatOptions): NodeHeartbeat {
  const { postgres, node, clock, log } = options
  const everyMs = options.everyMs ?? 1_000
  const ended = new AbortController()
  let waiters: (() => void)[] = []
  let wake = new AbortController()
  let beating: Promise<void> | undefined
  const reach = createReach(clock, log)
  const changes = createChanges(clock)
  const pruneNow = createPrune(postgres, clock)

  const write = async (): Promise<void> => {
    // Taken before the write: who comes during it is served by the next.
    const served = waiters
    waiters = []
    try {
      const view = options.view()
      const metrics = changes.of(view.metrics)
      await postgres.query({ name: 'node-heartbeat', text: upsert, values: valuesOf(node, view, metrics) })
      changes.noteWritten(metrics)
    } catch (error) {
      waiters = [...served, ...waiters]
      throw error
    }
    for (const resolve of served) resolve()
    reach.noteWritten()
  }

  const beat = async (): Promise<void> => {
    while (!ended.signal.aborted) {
      await write().catch(reach.noteFailed)
      await pruneNow().catch(() => undefined)
      await clock.sleep(everyMs, wake.signal)
      wake = new AbortController()
    }
  }

  return {
    start: async () => {
      await write()
      beating ??= beat()
    },
    record: () =>
      new Promise((resolve) => {
        waiters.push(resolve)
        wake.abort()
      }),
    stop: async (limitMs) => {
      ended.abort()
      wake.abort()
      const remove = async (): Promise<void> => {
        // A write that is under way would bring the row back.
        await beating
        await postgres.query('DELETE FROM nodes WHERE id = $1', [node.id])
      }
      await withLimit(remove(), limitMs).catch((error: unknown) =>
        log.warn({ reason: messageOf(error) }, 'the row of this node stays behind; it is stale in 4 s'),
      )
    },
  }
}

const valuesOf = (
  node: NodeHeartbeatOptions['node'],
  { children, runners, state }: NodeView,
  metrics: string | undefined,
): unknown[] => [
  node.id,
  node.kind,
  node.host,
  node.pid,
  node.version,
  children ? JSON.stringify(children) : null,
  runners ?? [],
  state,
  metrics ?? null,
]

/** Lets counters through now and then, and only when they have changed: a heartbeat a second should stay small. */
function createChanges(clock: Clock) {
  let written: string | undefined
  let writtenAt = Number.NEGATIVE_INFINITY
  return {
    of: (metrics: string | undefined): string | undefined =>
      metrics === written || clock.monotonicMs() - writtenAt < metricsEveryMs ? undefined : metrics,
    noteWritten: (metrics: string | undefined): void => {
      if (metrics === undefined) return
      written = metrics
      writtenAt = clock.monotonicMs()
    },
  }
}

/** Says once that Postgres is out of reach, and once that it is back. */
function createReach(clock: Clock, log: Log) {
  let writtenAt = clock.monotonicMs()
  let lost = false
  const silentMs = (): number => Math.round(clock.monotonicMs() - writtenAt)
  return {
    noteWritten: (): void => {
      if (lost) {
        log.warn({ silentMs: silentMs() }, 'Postgres is back; what others took over meanwhile is fenced here')
      }
      lost = false
      writtenAt = clock.monotonicMs()
    },
    noteFailed: (error: unknown): void => {
      if (lost || silentMs() < deadMs) return
      lost = true
      log.error(
        { silentMs: silentMs(), reason: messageOf(error) },
        'no heartbeat reached Postgres: other nodes may take over the runs of this one',
      )
    },
  }
}

function createPrune(postgres: Postgres, clock: Clock): () => Promise<void> {
  let prunedAt = Number.NEGATIVE_INFINITY
  return async () => {
    if (clock.monotonicMs() - prunedAt < pruneEveryMs) return
    prunedAt = clock.monotonicMs()
    await postgres.query(prune)
  }
}
