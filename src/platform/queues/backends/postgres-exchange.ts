import type { IQueueBackend } from 'bullmq'
import type { QueuePool } from '../../postgres/queue-pool.ts'
import { kept } from './entries.ts'
import type { Ended, Exchange, Exchanged, Taken } from './exchange.ts'

/**
 * Does to BullMQ's table what its move_to_completed does to entries without parents, children and deduplication, and
 * what its move_to_active does to those that wait, less the events that nobody reads. Promotions, pauses and limits
 * it leaves to BullMQ, and says so.
 */
const exchangeRows = `WITH ended AS (
    DELETE FROM job USING unnest($2::text[], $3::text[]) AS r (id, token)
    WHERE job.queue = $1 AND job.id = r.id AND job.state = 'active' AND job.lock_token = r.token
    RETURNING job.id),
  limits AS MATERIALIZED (SELECT EXISTS (SELECT FROM meta
      WHERE queue = $1 AND (field = 'paused' AND value = '1' OR field IN ('concurrency', 'max'))) AS limited,
    (SELECT min(process_at_ms) FROM job WHERE queue = $1 AND state = 'delayed') AS due_at),
  line AS MATERIALIZED (
    SELECT id FROM job WHERE queue = $1 AND state = 'waiting' AND NOT (SELECT limited FROM limits)
    ORDER BY priority, seq
    -- One place is left for the entry that BullMQ will find once it has promoted what is due.
    LIMIT greatest(0, $4::int - (SELECT coalesce(due_at <= $6::bigint, false)::int FROM limits)) FOR UPDATE SKIP LOCKED),
  numbered AS (SELECT id, row_number() OVER () AS nth FROM line),
  taken AS (
    UPDATE job SET state = 'active', lock_token = $5 || nth, locked_until_ms = $6::bigint + $7::bigint,
      processed_at_ms = $6::bigint, processed_by = $8, attempts_started = attempts_started + 1
    FROM numbered WHERE job.queue = $1 AND job.id = numbered.id
    RETURNING job.id, job.name, job.data::text AS data, (job.opts->>'attempts')::int AS attempts,
      job.attempts_made AS "attemptsMade", job.stalled_count AS stalls, $5 || nth AS token, nth)
  SELECT (SELECT coalesce(array_agg(id), '{}') FROM ended) AS ended,
    (SELECT coalesce(json_agg(taken ORDER BY nth), '[]') FROM taken) AS taken, limited, due_at::float8 AS due_at
  FROM limits`

const whyNot = `SELECT r.id, CASE WHEN job.id IS NULL THEN -1 WHEN job.state <> 'active' THEN -3 ELSE -6 END AS code
  FROM unnest($2::text[]) AS r (id) LEFT JOIN job ON job.queue = $1 AND job.id = r.id`

interface ExchangeRow {
  ended: string[]
  taken: (Omit<Taken, 'data' | 'attempts'> & { data: string | null; attempts: number | null })[]
  limited: boolean
  due_at: number | null
}

export interface PostgresExchangeOptions {
  queue: string
  runner: string
  lockMs: number
}

export function createPostgresExchange(
  pool: QueuePool,
  backend: IQueueBackend,
  { queue, runner, lockMs }: PostgresExchangeOptions,
): (exchange: Exchange) => Promise<Exchanged> {
  return async ({ ended, take, tokenBase, epochMs }) => {
    const dropped = ended.filter((each) => each.kept === undefined)
    const others = await Promise.all(
      ended.filter((each) => each.kept !== undefined).map((each) => keep(backend, each)),
    )
    const { rows } = await pool.query<ExchangeRow>(exchangeRows, [
      queue,
      dropped.map((each) => each.id),
      dropped.map((each) => each.token),
      take,
      tokenBase,
      Math.round(epochMs),
      lockMs,
      runner,
    ])
    const { ended: done = [], taken = [], limited = false, due_at: dueAt = null } = rows[0] ?? {}
    const lost = dropped.map((each) => each.id).filter((id) => !done.includes(id))
    const isUnclear = limited || (dueAt !== null && dueAt <= Math.round(epochMs))
    return {
      failed: [...others.flat(), ...(lost.length > 0 ? await reasons(pool, queue, lost) : [])],
      taken: taken.map((row) => ({ ...row, data: row.data ?? '{}', attempts: row.attempts ?? 1 })),
      husks: [],
      left: isUnclear ? 'unclear' : taken.length === take ? 'some' : 'none',
      dueAt: dueAt ?? 0,
    }
  }
}

/** Entries that stay are rare enough for BullMQ's own way. */
async function keep(
  backend: IQueueBackend,
  { id, token, kept: json = 'null' }: Ended,
): Promise<Exchanged['failed']> {
  try {
    await backend.moveToCompleted({ id } as never, JSON.parse(json) as unknown, kept, token, false)
    return []
  } catch (error) {
    const code = (error as { code?: unknown }).code
    if (typeof code !== 'number') throw error
    return [{ id, code }]
  }
}

async function reasons(pool: QueuePool, queue: string, ids: string[]): Promise<Exchanged['failed']> {
  return (await pool.query<{ id: string; code: number }>(whyNot, [queue, ids])).rows
}
