import { toIso } from '../../core/clock.ts'
import type { Queryable } from '../postgres/postgres.ts'

/** What the ledger says of one queue. */
export interface QueueFigures {
  queue: string
  waiting: number
  delayed: number
  active: number
  failed: number
  /** How long the oldest due job has waited, ms; 0 when none of those counted waits. */
  oldestWaitingMs: number
}

export interface QueuesReading {
  queues: QueueFigures[]
  /** False: there were more rows than are counted, so what waits, is delayed or active is a lower bound. */
  unfinishedExact: boolean
  /** The same of what has failed. */
  failedExact: boolean
}

/** Rows that are looked at, of those unfinished and of those failed. */
const maxCounted = 50_000

// The next due first, so that the oldest of each queue is among what is counted.
const unfinishedByQueue = `SELECT queue,
    count(*) FILTER (WHERE NOT active AND NOT early)::float8 AS waiting,
    count(*) FILTER (WHERE NOT active AND early)::float8 AS delayed,
    count(*) FILTER (WHERE active)::float8 AS active,
    greatest(0, extract(epoch FROM now() - min(run_at) FILTER (WHERE NOT active AND NOT early)) * 1000)::float8
      AS oldest_ms
  FROM (SELECT queue, run_at, run_token IS NOT NULL AS active, run_at > now() AS early
    FROM jobs WHERE outcome IS NULL ORDER BY run_at LIMIT ${maxCounted}) AS unfinished
  GROUP BY queue`
const failedByQueue = `SELECT queue, count(*)::float8 AS failed
  FROM (SELECT queue FROM jobs WHERE outcome = 'failed' LIMIT ${maxCounted}) AS failed GROUP BY queue`

interface UnfinishedRow {
  queue: string
  waiting: number
  delayed: number
  active: number
  oldest_ms: number | null
}

/** Bounded work: it is asked every few seconds while somebody looks at the overview. */
export async function readQueueFigures(
  postgres: Queryable,
  known: readonly string[],
): Promise<QueuesReading> {
  const [unfinished, failed] = await Promise.all([
    postgres.query<UnfinishedRow & Record<string, unknown>>(unfinishedByQueue),
    postgres.query<{ queue: string; failed: number }>(failedByQueue),
  ])
  const open = new Map(unfinished.rows.map((row) => [row.queue, row]))
  const ended = new Map(failed.rows.map((row) => [row.queue, row.failed]))
  const names = [...new Set([...known, ...open.keys(), ...ended.keys()])].toSorted()
  const counted = (counts: Iterable<number>): number => [...counts].reduce((sum, each) => sum + each, 0)
  const openTotal = counted(unfinished.rows.map((row) => row.waiting + row.delayed + row.active))
  return {
    queues: names.map((queue) => ({
      queue,
      waiting: open.get(queue)?.waiting ?? 0,
      delayed: open.get(queue)?.delayed ?? 0,
      active: open.get(queue)?.active ?? 0,
      failed: ended.get(queue) ?? 0,
      oldestWaitingMs: open.get(queue)?.oldest_ms ?? 0,
    })),
    unfinishedExact: openTotal < maxCounted,
    failedExact: counted(ended.values()) < maxCounted,
  }
}

/** A recurring job as people see it. */
export interface ScheduleView {
  name: string
  job: string
  cron: string
  timeZone: string
  nextAt: string
  lastAt?: string
}

export async function readSchedules(postgres: Queryable, limit: number): Promise<ScheduleView[]> {
  const { rows } = await postgres.query<{
    name: string
    job: string
    cron: string
    time_zone: string
    next_at: Date
    last_at: Date | null
  }>('SELECT name, job, cron, time_zone, next_at, last_at FROM schedules ORDER BY next_at, name LIMIT $1', [
    limit,
  ])
  return rows.map((row) => ({
    name: row.name,
    job: row.job,
    cron: row.cron,
    timeZone: row.time_zone,
    nextAt: toIso(row.next_at.getTime()),
    ...(row.last_at ? { lastAt: toIso(row.last_at.getTime()) } : {}),
  }))
}

/** What is left for the reconciler, and when it last had to fill the engine anew. */
export interface Reconciliation {
  /** Unfinished rows that nobody has handed to the engine yet. */
  unqueued: number
  /** False: there are more than were counted. */
  exact: boolean
  /** When all entries of a queue were last added again, since the engine was new or had forgotten them. */
  refilledAt?: string
}

export async function readReconciliation(postgres: Queryable): Promise<Reconciliation> {
  const { rows } = await postgres.query<{ unqueued: number; refilled_at: Date | null }>(
    `SELECT (SELECT count(*)::float8 FROM (SELECT FROM jobs WHERE outcome IS NULL AND NOT queued
        LIMIT ${maxCounted}) AS counted) AS unqueued,
      (SELECT max(checked_at) FROM queue_epochs) AS refilled_at`,
  )
  const { unqueued = 0, refilled_at: refilledAt = null } = rows[0] ?? {}
  return {
    unqueued,
    exact: unqueued < maxCounted,
    ...(refilledAt ? { refilledAt: toIso(refilledAt.getTime()) } : {}),
  }
}
