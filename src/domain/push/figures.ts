import type { Queryable } from '../../platform/postgres/postgres.ts'
import type { PushState } from './push.ts'
import type { TransportKind } from './transport.ts'

/** How pushes are, for people. Each part costs a bounded number of rows, however many there are. */
export interface PushFigures {
  open: OpenPushes
  backlog: PushBacklog
  recent: RecentPushes
  devices: { count: number; exact: boolean }
  transports: TransportCount[]
}

export interface OpenPushes {
  /** Rows that are not closed; an estimate of the planner's where `exact` is false. */
  total: number
  /** False: there are more than are counted, and `states` is what was found among as many as are. */
  exact: boolean
  states: Partial<Record<PushState, number>>
}

/** What the cloud side should have looked at by now. Workers claim it within seconds; what lies longer is stuck. */
export interface PushBacklog {
  due: number
  /** False: counting stopped at `due`. */
  exact: boolean
  /** How long ago the first of them was due, ms; 0 when none is. */
  oldestMs: number
  oldest?: { id: string; device: string }
}

/** What became of those that were accepted last. */
export interface RecentPushes {
  /** Rows that were looked at. */
  rows: number
  /** Accepted since; absent when there is none. ISO 8601. */
  since?: string
  states: Partial<Record<PushState, number>>
  lastMinute: number
  /** False: more than `lastMinute` were accepted within the minute. */
  lastMinuteExact: boolean
}

export interface TransportCount {
  kind: TransportKind
  living: number
  dead: number
  /** False: drawn from a sample of the table. */
  exact: boolean
}

/** Rows that are counted of one kind; in cache that takes some 10 ms. */
const maxCounted = 10_000
/** Pages of the table of transports that are read: 8 MB, some 50,000 rows. */
const maxPages = 1_000

export async function readPushFigures(postgres: Queryable): Promise<PushFigures> {
  const [open, backlog, recent, devices, transports] = await Promise.all([
    readOpen(postgres),
    readBacklog(postgres),
    readRecent(postgres),
    countDevices(postgres),
    countTransports(postgres),
  ])
  return { open, backlog, recent, devices, transports }
}

interface StateRow {
  state: PushState
  n: number
}

const statesOf = (rows: StateRow[]): Partial<Record<PushState, number>> =>
  Object.fromEntries(rows.map(({ state, n }) => [state, n]))
const sumOf = (rows: { n: number }[]): number => rows.reduce((sum, { n }) => sum + n, 0)

/** In the order of the index of open rows: without one the planner might read all that are closed to find them. */
async function readOpen(postgres: Queryable): Promise<OpenPushes> {
  const { rows } = await postgres.query<StateRow>(
    `SELECT state, count(*)::int AS n FROM (
       SELECT state FROM pushes WHERE closed_at IS NULL ORDER BY shard, due_at LIMIT ${maxCounted + 1}) AS counted
     GROUP BY state`,
  )
  const counted = sumOf(rows)
  const exact = counted <= maxCounted
  const total = exact ? counted : Math.max(counted, await estimateOf(postgres, 'pushes_due'))
  return { total, exact, states: statesOf(rows) }
}

/** What the last ANALYZE knew of a table, or of a partial index. */
async function estimateOf(postgres: Queryable, relation: 'pushes_due' | 'devices'): Promise<number> {
  const { rows } = await postgres.query<{ n: number }>(
    'SELECT reltuples::float8 AS n FROM pg_class WHERE oid = $1::regclass',
    [relation],
  )
  return rows[0]?.n ?? 0
}

/** The first of each shard by the index, so that the oldest costs 64 probes and not a sort. */
export async function readBacklog(postgres: Queryable): Promise<PushBacklog> {
  const [counted, oldest] = await Promise.all([
    postgres.query<{ n: number }>(
      `SELECT count(*)::int AS n FROM (SELECT FROM generate_series(0, 63) AS s CROSS JOIN LATERAL (
         SELECT FROM pushes WHERE closed_at IS NULL AND shard = s AND due_at <= now() LIMIT ${maxCounted + 1}) AS p
        LIMIT ${maxCounted + 1}) AS counted`,
    ),
    postgres.query<{ id: string; device: string; age_ms: number }>(
      `SELECT p.id::text, p.device, (extract(epoch FROM now() - p.due_at) * 1000)::float8 AS age_ms
         FROM generate_series(0, 63) AS s CROSS JOIN LATERAL (
           SELECT id, device, due_at FROM pushes WHERE closed_at IS NULL AND shard = s AND due_at <= now()
            ORDER BY due_at LIMIT 1) AS p
        ORDER BY p.due_at LIMIT 1`,
    ),
  ])
  const due = counted.rows[0]?.n ?? 0
  const [first] = oldest.rows
  return {
    due: Math.min(due, maxCounted),
    exact: due <= maxCounted,
    oldestMs: first?.age_ms ?? 0,
    ...(first ? { oldest: { id: first.id, device: first.device } } : {}),
  }
}

/** Ids begin with their time, so the end of the primary key is what came last. */
async function readRecent(postgres: Queryable): Promise<RecentPushes> {
  const { rows } = await postgres.query<StateRow & { last: number; since: Date }>(
    `SELECT state, count(*)::int AS n, count(*) FILTER (WHERE accepted_at > now() - interval '1 minute')::int AS last,
       min(accepted_at) AS since
     FROM (SELECT state, accepted_at FROM pushes ORDER BY id DESC, device DESC LIMIT ${maxCounted}) AS counted
     GROUP BY state`,
  )
  const lastMinute = rows.reduce((sum, { last }) => sum + last, 0)
  const since = rows.map((row) => row.since.toISOString()).toSorted()[0]
  return {
    rows: sumOf(rows),
    ...(since === undefined ? {} : { since }),
    states: statesOf(rows),
    lastMinute,
    lastMinuteExact: lastMinute < maxCounted,
  }
}

async function countDevices(postgres: Queryable): Promise<{ count: number; exact: boolean }> {
  const { rows } = await postgres.query<{ n: number }>(
    `SELECT count(*)::int AS n FROM (SELECT FROM devices LIMIT ${maxCounted + 1}) AS counted`,
  )
  const count = rows[0]?.n ?? 0
  if (count <= maxCounted) return { count, exact: true }
  return { count: Math.max(count, await estimateOf(postgres, 'devices')), exact: false }
}

/** No index tells which are dead: of a large table a sample of its pages is read. */
async function countTransports(postgres: Queryable): Promise<TransportCount[]> {
  const { rows: sizes } = await postgres.query<{ pages: number }>(
    `SELECT (pg_relation_size('transports') / current_setting('block_size')::int)::int AS pages`,
  )
  const share = Math.min(1, maxPages / Math.max(1, sizes[0]?.pages ?? 0))
  const sample = share < 1 ? `TABLESAMPLE SYSTEM (${100 * share})` : ''
  const { rows } = await postgres.query<{ kind: TransportKind; n: number; dead: number }>(
    `SELECT kind, count(*)::int AS n, count(dead_at)::int AS dead FROM transports ${sample} GROUP BY kind ORDER BY kind`,
  )
  return rows.map(({ kind, n, dead }) => ({
    kind,
    living: Math.round((n - dead) / share),
    dead: Math.round(dead / share),
    exact: share === 1,
  }))
}
