import type { Clock } from '../../core/clock.ts'
import { newId } from '../../core/ids.ts'
import type { Postgres } from '../postgres/postgres.ts'
import type { JobState, LedgerSummary } from './ledger.ts'

/** Up to here rows are counted; beyond, the planner's estimate has to do. */
const maxCounted = 100_000

const countUnfinished = `SELECT count(*)::float8 AS total, count(*) FILTER (WHERE active)::float8 AS active,
      count(*) FILTER (WHERE delayed)::float8 AS delayed
    FROM (SELECT run_token IS NOT NULL AS active, run_token IS NULL AND run_at > now() AS delayed
      FROM jobs WHERE outcome IS NULL ORDER BY run_at LIMIT ${maxCounted}) AS unfinished`
const countFinished = `SELECT (SELECT count(*) FROM (SELECT FROM jobs WHERE outcome = 'completed' LIMIT ${maxCounted}) AS counted)::float8
      AS completed,
    (SELECT count(*) FROM (SELECT FROM jobs WHERE outcome = 'failed' LIMIT ${maxCounted}) AS counted)::float8 AS failed,
    (SELECT count(*) FROM (SELECT FROM jobs WHERE outcome = 'cancelled' LIMIT ${maxCounted}) AS counted)::float8
      AS cancelled,
    (SELECT greatest(reltuples, 0)::float8 FROM pg_class WHERE oid = 'jobs'::regclass) AS estimate`
const countRecent = `SELECT
    (SELECT count(*) FROM (SELECT FROM jobs WHERE outcome = 'completed'
      AND finished_at > now() - interval '1 minute' LIMIT ${maxCounted}) AS counted)::float8 AS completed,
    (SELECT count(*) FROM (SELECT FROM jobs WHERE outcome = 'failed'
      AND finished_at > now() - interval '1 minute' LIMIT ${maxCounted}) AS counted)::float8 AS failed,
    (SELECT count(*) FROM (SELECT FROM jobs WHERE id > $1::uuid LIMIT ${maxCounted}) AS counted)::float8 AS accepted,
    (SELECT greatest(0, extract(epoch FROM now() - run_at) * 1000)::float8 FROM jobs
      WHERE outcome IS NULL AND run_token IS NULL AND run_at <= now() ORDER BY run_at LIMIT 1) AS oldest_ms`

interface Finished {
  completed: number
  failed: number
  cancelled: number
  estimate: number
}

/** What the overview shows. Bounded work: it is asked every few seconds, also when there are millions of rows. */
export async function summarize(postgres: Postgres, clock: Clock): Promise<LedgerSummary> {
  // An id begins with the time at which it was made, so the key itself finds what came in last.
  const aMinuteAgo = newId(clock.now() - 60_000)
  const [unfinished, finished, recent] = await Promise.all([
    postgres.query<{ total: number; active: number; delayed: number }>(countUnfinished),
    postgres.query<Finished>(countFinished),
    postgres.query<{ completed: number; failed: number; accepted: number; oldest_ms: number | null }>(
      countRecent,
      [aMinuteAgo],
    ),
  ])
  const open = unfinished.rows[0] ?? { total: 0, active: 0, delayed: 0 }
  const ended = finished.rows[0] ?? { completed: 0, failed: 0, cancelled: 0, estimate: 0 }
  const now = recent.rows[0] ?? { completed: 0, failed: 0, accepted: 0, oldest_ms: null }
  return {
    states: statesOf(open, ended),
    oldestWaitingMs: now.oldest_ms ?? 0,
    perMinute: { completed: now.completed, failed: now.failed, accepted: now.accepted },
    exact: [open.total, ended.completed, ended.failed, ended.cancelled].every((count) => count < maxCounted),
  }
}

/** What was not counted to its end gets the rest of the estimated rows: there is hardly ever more than one such state. */
function statesOf(
  open: { total: number; active: number; delayed: number },
  ended: Finished,
): Record<JobState, number> {
  const states = {
    waiting: open.total - open.active - open.delayed,
    delayed: open.delayed,
    active: open.active,
    completed: ended.completed,
    failed: ended.failed,
    cancelled: ended.cancelled,
  }
  const counted = Object.values(states).reduce((sum, each) => sum + each, 0)
  const rest = Math.max(0, ended.estimate - counted)
  if (open.total >= maxCounted && ended.completed < maxCounted) states.waiting += rest
  else if (ended.completed >= maxCounted) states.completed += rest
  return states
}
