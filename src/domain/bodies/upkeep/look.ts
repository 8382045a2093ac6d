import { type Clock, toIso } from '../../../core/clock.ts'
import { messageOf } from '../../../core/errors.ts'
import { withLimit } from '../../../core/lifecycle.ts'
import type { Queryable } from '../../../platform/postgres/postgres.ts'
import type { BodyStore } from '../body-store.ts'
import { BODY_NOT_FOUND, BODY_UNAVAILABLE } from '../errors.ts'
import type { BodiesStatus } from '../upkeep.ts'

/** How bodies are, by their rows, for people who wait for a page: of very many rows a sample is counted. */
export interface BodiesLook {
  counts: BodyCounts
  repairs: RepairLook
  scrub: BodiesStatus['scrub'] & { passBeganAt: string; passShare: number }
}

/** How a store answers, for people who wait for a page. */
export interface AskedStore {
  name: string
  /** `resting`: it failed a moment ago and is not asked; `silent`: it has not answered within the wait. */
  state: 'ok' | 'away' | 'resting' | 'silent'
  /** Why, for operators: it may name hosts. */
  reason?: string
  draining: boolean
}

export interface BodyCounts {
  bodies: number
  bytes: number
  /** With fewer than two recorded copies. */
  lacking: number
  /** Never read by the scrubber. */
  unchecked: number
  /** To be removed by the next sweep but one. */
  condemned: number
  /** False: drawn from a sample. */
  exact: boolean
  /** Recorded copies by the name of their store. */
  copies: ReadonlyMap<string, number>
}

export interface RepairLook {
  waiting: number
  /** False: counting stopped at `waiting`. */
  exact: boolean
  /** Without a sound copy anywhere, among those counted. */
  lost: number
  oldestMs: number
  /** The most frequent first. */
  reasons: { reason: string; waiting: number; oldestMs: number; tries: number; error?: string }[]
}

/** Pages of the table of bodies that are read: 32 MB, some 100,000 rows. */
const maxPages = 4_000
const maxRepairs = 50_000
const maxReasons = 10

async function readCounts(postgres: Queryable): Promise<BodyCounts> {
  const sizes = await postgres.query<{ pages: number }>(
    `SELECT (pg_relation_size('bodies') / current_setting('block_size')::int)::int AS pages`,
  )
  const share = Math.min(1, maxPages / Math.max(1, sizes.rows[0]?.pages ?? 0))
  // REPEATABLE: both statements look at the same pages.
  const sample = share < 1 ? `TABLESAMPLE SYSTEM (${100 * share}) REPEATABLE (${Math.random()})` : ''
  const [counted, copies] = await Promise.all([
    postgres.query<Record<'bodies' | 'bytes' | 'lacking' | 'unchecked' | 'condemned', number>>(
      `SELECT count(*)::float8 AS bodies, coalesce(sum(size), 0)::float8 AS bytes,
         count(*) FILTER (WHERE cardinality(stores) < 2)::float8 AS lacking,
         count(*) FILTER (WHERE checked_at IS NULL)::float8 AS unchecked, count(condemned_at)::float8 AS condemned
       FROM bodies ${sample} WHERE stores <> '{}'`,
    ),
    postgres.query<{ name: string; copies: number }>(
      `SELECT name, count(*)::float8 AS copies FROM bodies ${sample}, unnest(stores) AS name GROUP BY name ORDER BY name`,
    ),
  ])
  const whole = (value = 0): number => Math.round(value / share)
  const row = counted.rows[0]
  return {
    bodies: whole(row?.bodies),
    bytes: whole(row?.bytes),
    lacking: whole(row?.lacking),
    unchecked: whole(row?.unchecked),
    condemned: whole(row?.condemned),
    exact: share === 1,
    copies: new Map(copies.rows.map((each) => [each.name, whole(each.copies)])),
  }
}

interface ReasonRow {
  reason: string
  n: number
  lost: number
  oldest_ms: number
  tries: number
  error: string | null
}

export async function readRepairs(postgres: Queryable): Promise<RepairLook> {
  const { rows } = await postgres.query<ReasonRow>(
    `SELECT reason, count(*)::int AS n, count(*) FILTER (WHERE error = 'no sound copy is left')::int AS lost,
       (extract(epoch FROM now() - min(since)) * 1000)::float8 AS oldest_ms, max(attempts) AS tries,
       (array_agg(error ORDER BY due_at DESC) FILTER (WHERE error <> ''))[1] AS error
     FROM (SELECT reason, error, since, attempts, due_at FROM body_repairs LIMIT ${maxRepairs}) AS counted
     GROUP BY reason ORDER BY n DESC, reason`,
  )
  const sum = (of: (row: ReasonRow) => number): number => rows.reduce((total, row) => total + of(row), 0)
  const waiting = sum((row) => row.n)
  return {
    waiting,
    exact: waiting < maxRepairs,
    lost: sum((row) => row.lost),
    oldestMs: Math.max(0, ...rows.map((row) => row.oldest_ms)),
    reasons: rows.slice(0, maxReasons).map((row) => ({
      reason: row.reason,
      waiting: row.n,
      oldestMs: row.oldest_ms,
      tries: row.tries,
      ...(row.error === null ? {} : { error: row.error }),
    })),
  }
}

interface ScrubRow {
  passes: number
  checked: number
  bad: number
  missing: number
  lost: number
  ran_at: Date | null
  pass_began_at: Date
  cursor: string | null
  canary: BodiesStatus['scrub']['canary']
}

async function readScrub(postgres: Queryable, neverChecked: number): Promise<BodiesLook['scrub']> {
  const { rows } = await postgres.query<ScrubRow>(
    `SELECT passes::float8, checked::float8, bad::float8, missing::float8, lost::float8, ran_at, pass_began_at, cursor,
       CASE WHEN canary IS NULL THEN 'none' WHEN canary_found_at IS NOT NULL THEN 'found'
            WHEN canary_planted_at < now() - interval '1 day' THEN 'overdue' ELSE 'planted' END AS canary
     FROM body_scrub`,
  )
  const [row] = rows
  if (!row) throw new Error('the row of the scrubber is gone')
  const { ran_at: ranAt, pass_began_at: beganAt, cursor, ...figures } = row
  return {
    ...figures,
    neverChecked,
    ranAt: ranAt && toIso(ranAt.getTime()),
    passBeganAt: toIso(beganAt.getTime()),
    // Ids are hashes, so the place of one among all is that of its first digits.
    passShare: Number.parseInt((cursor ?? '0').slice(0, 8).padEnd(8, '0'), 16) / 2 ** 32,
  }
}

/** @throws DATABASE_UNAVAILABLE, DATABASE_OVERLOADED */
export async function readLook(postgres: Queryable): Promise<BodiesLook> {
  const [counts, repairs] = await Promise.all([readCounts(postgres), readRepairs(postgres)])
  return { counts, repairs, scrub: await readScrub(postgres, counts.unchecked) }
}

/** Asks each store whether it is there, and waits for at most so many ms. */
export function createAsking(
  stores: readonly BodyStore[],
  clock: Clock,
): (waitMs: number) => Promise<AskedStore[]> {
  const probes = stores.map((store) => ({ store, probe: createProbe(store, clock) }))
  return (waitMs) =>
    Promise.all(
      probes.map(async ({ store: { name, draining = false }, probe }) => ({
        name,
        draining,
        ...(await probe(waitMs)),
      })),
    )
}

type StoreState = Pick<AskedStore, 'state' | 'reason'>

/** One question at a time: each to a disk that hangs keeps one of the few threads for files. */
function createProbe(store: BodyStore, clock: Clock): (waitMs: number) => Promise<StoreState> {
  let asked: { answer: Promise<StoreState>; atMs: number } | undefined
  const ask = async (): Promise<StoreState> => {
    try {
      return await stateOf(store)
    } finally {
      asked = undefined
    }
  }
  return async (waitMs) => {
    const { answer, atMs } = (asked ??= { answer: ask(), atMs: clock.monotonicMs() })
    const waitedMs = clock.monotonicMs() - atMs
    try {
      // Of a question that has been open for long nobody waits anew.
      return await withLimit(answer, Math.max(0, waitMs - waitedMs))
    } catch {
      const seconds = ((clock.monotonicMs() - atMs) / 1_000).toFixed(1)
      return { state: 'silent', reason: `it was asked ${seconds} s ago and has not answered` }
    }
  }
}

/** Never throws. */
async function stateOf(store: BodyStore): Promise<StoreState> {
  try {
    // Recognizes the place too: see guarded-store.ts.
    await store.stat('0'.repeat(64))
    return { state: 'ok' }
  } catch (error) {
    if (BODY_NOT_FOUND.is(error)) return { state: 'ok' }
    // Only a breaker says when to come again.
    const isResting = BODY_UNAVAILABLE.is(error) && error.retryAfterMs !== undefined
    return { state: isResting ? 'resting' : 'away', reason: messageOf(error) }
  }
}
