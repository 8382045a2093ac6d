import type { Postgres } from '../postgres/postgres.ts'
import { clearedAsCrash, isAlive } from './ledger-sql.ts'

/** A row that lacks its entry, with what the entry is made of. */
export interface RowToAdd {
  id: string
  name: string
  queue: string
  priority: number
  delayMs: number
  retried: number
}

/** Where a walk over unfinished rows has come to, in the order of `run_at` and id. */
export interface Place {
  runAt: string
  id: string
}

export interface Page {
  rows: RowToAdd[]
  /** Undefined when the walk is at its end. */
  next: Place | undefined
}

export interface OverdueWalk {
  overdueMs: number
  from: Place | undefined
  /** Also rows that a live run has held for so long. */
  withRunning: boolean
}

export interface OverduePage extends Page {
  /** Those of the rows that a dead run holds. */
  held: string[]
  /** Not among the rows: what live runs hold. */
  running: RowToAdd[]
}

/** What the reconciler reads and writes. */
export interface ReconcileRows {
  unqueued(limit: number): Promise<RowToAdd[]>
  markQueued(rows: RowToAdd[]): Promise<void>
  /** Unfinished rows of a queue that no live run holds, from a place on. */
  unfinished(queue: string, from: Place | undefined, limit: number): Promise<Page>
  /** Rows due for more than `overdueMs`, of all queues: those that no live run holds, and what else was asked for. */
  overdue(walk: OverdueWalk, limit: number): Promise<OverduePage>
  /** Step 6 for those of them whose holder is dead. @returns those that may run again, and those that ended by it */
  release(ids: string[]): Promise<{ freed: number; ended: Set<string> }>
  epochs(): Promise<Map<string, string>>
  recordEpoch(queue: string, epoch: string): Promise<void>
  pruneIdempotencyKeys(limit: number): Promise<number>
}

const columns = `j.id, j.name, j.queue, j.priority, j.retried,
  greatest(0, ceil(extract(epoch FROM j.run_at - now()) * 1000))::float8 AS "delayMs"`
const place = `to_char(j.run_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "runAt"`
const isFree = `(j.run_token IS NULL OR NOT ${isAlive})`
const fromPlace = (at: string, id: string): string =>
  `(${at}::timestamptz IS NULL OR (j.run_at, j.id) > (${at}::timestamptz, ${id}::uuid))`

type WalkedRow = RowToAdd & { runAt: string; held: boolean; running: boolean }

export const createReconcileRows = (postgres: Postgres): ReconcileRows => ({
  ...createWalks(postgres),
  ...createMarks(postgres),
})

type Walks = Pick<ReconcileRows, 'unqueued' | 'unfinished' | 'overdue'>

function createWalks(postgres: Postgres): Walks {
  return {
    unqueued: async (limit) => {
      const { rows } = await postgres.query<RowToAdd>(
        `SELECT ${columns} FROM jobs j WHERE j.outcome IS NULL AND NOT j.queued ORDER BY j.enqueued_at LIMIT $1`,
        [limit],
      )
      return rows
    },
    unfinished: async (queue, from, limit) => {
      const { rows } = await postgres.query<WalkedRow>(
        `SELECT ${columns}, ${place} FROM jobs j
         WHERE j.outcome IS NULL AND j.queue = $1 AND ${isFree} AND ${fromPlace('$2', '$3')}
         ORDER BY j.run_at, j.id LIMIT $4`,
        [queue, from?.runAt ?? null, from?.id ?? null, limit],
      )
      return pageOf(rows, limit)
    },
    overdue: async ({ overdueMs, from, withRunning }, limit) => {
      const { rows } = await postgres.query<WalkedRow>(
        `SELECT ${columns}, ${place}, j.run_token IS NOT NULL AS held, NOT ${isFree} AS running FROM jobs j
         WHERE j.outcome IS NULL AND j.run_at < now() - $1 * interval '1 millisecond'
           AND (${isFree} OR $5 AND j.started_at < now() - $1 * interval '1 millisecond')
           AND ${fromPlace('$2', '$3')}
         ORDER BY j.run_at, j.id LIMIT $4`,
        [overdueMs, from?.runAt ?? null, from?.id ?? null, limit, withRunning],
      )
      const running = rows.filter((row) => row.running)
      const free = rows.filter((row) => !row.running)
      const held = free.filter((row) => row.held).map((row) => row.id)
      return { next: pageOf(rows, limit).next, rows: free, held, running }
    },
  }
}

function createMarks(postgres: Postgres): Omit<ReconcileRows, keyof Walks> {
  return {
    markQueued: async (rows) => {
      // A row that was retried by hand meanwhile needs another entry.
      await postgres.query(
        `UPDATE jobs j SET queued = true FROM unnest($1::uuid[], $2::int[]) AS r (id, retried)
         WHERE j.id = r.id AND j.retried = r.retried AND NOT j.queued`,
        [rows.map((row) => row.id), rows.map((row) => row.retried)],
      )
    },
    release: async (ids) => {
      const { rows } = await postgres.query<{ id: string; ended: boolean }>(
        `UPDATE jobs j SET ${clearedAsCrash}
         WHERE j.id = ANY($1::uuid[]) AND j.outcome IS NULL AND j.run_token IS NOT NULL AND NOT ${isAlive}
         RETURNING j.id, j.outcome IS NOT NULL AS ended`,
        [ids],
      )
      const ended = new Set(rows.filter((row) => row.ended).map((row) => row.id))
      return { freed: rows.length - ended.size, ended }
    },
    epochs: async () => {
      const { rows } = await postgres.query<{ queue: string; epoch: string }>(
        'SELECT queue, epoch FROM queue_epochs',
      )
      return new Map(rows.map((row) => [row.queue, row.epoch]))
    },
    recordEpoch: async (queue, epoch) => {
      await postgres.query(
        `INSERT INTO queue_epochs (queue, epoch) VALUES ($1, $2)
         ON CONFLICT (queue) DO UPDATE SET epoch = excluded.epoch, checked_at = now()`,
        [queue, epoch],
      )
    },
    pruneIdempotencyKeys: async (limit) => {
      const { rowCount } = await postgres.query(
        `DELETE FROM idempotency_keys WHERE (owner, key) IN (
           SELECT owner, key FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
           ORDER BY created_at LIMIT $1) AND created_at < now() - interval '24 hours'`,
        [limit],
      )
      return rowCount ?? 0
    },
  }
}

function pageOf(rows: WalkedRow[], limit: number): Page {
  const last = rows.at(-1)
  return { rows, next: rows.length === limit && last ? { runAt: last.runAt, id: last.id } : undefined }
}
