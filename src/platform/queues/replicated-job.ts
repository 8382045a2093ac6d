import { codeOf } from '../../core/errors.ts'
import { isId } from '../../core/ids.ts'
import type { Queryable } from '../postgres/postgres.ts'
import { instantOf, instantText } from '../replication/instants.ts'
import type { ReplicatedType } from '../replication/replicated.ts'
import { JOB_KEY_TAKEN } from './errors.ts'

/**
 * A job as sites copy it: what was promised and what became of it. Not the run under way, its progress and its
 * checkpoint, nor whether a queue has it: at the other site nobody runs it, and no queue knows it.
 *
 * Whatever stands here has to be watched by the trigger `change_updated` of jobs (migration 0050), else a change of it
 * would not be told.
 */
interface JobContent {
  id: string
  name: string
  queue: string
  /** The columns of json are texts here, as they were stored: nothing parses them. */
  payload: string
  priority: number
  maxAttempts: number
  dedupeKey: string | null
  context: string | null
  enqueuedAt: string
  runAt: string
  attempts: number
  interruptions: number
  crashes: number
  cancelRequestedAt: string | null
  outcome: string | null
  result: string | null
  error: string | null
  finishedAt: string | null
  retried: number
  /** Of the last run, once it is over. */
  startedAt: string | null
}

const readText = `SELECT id, name, queue, payload::text AS payload, priority, max_attempts AS "maxAttempts",
    dedupe_key AS "dedupeKey", context::text AS context, ${instantText('enqueued_at')} AS "enqueuedAt",
    ${instantText('run_at')} AS "runAt", attempts, interruptions, crashes,
    ${instantText('cancel_requested_at')} AS "cancelRequestedAt", outcome, result::text AS result, error::text AS error,
    ${instantText('finished_at')} AS "finishedAt", retried,
    ${instantText('CASE WHEN outcome IS NOT NULL THEN started_at END')} AS "startedAt"
  FROM jobs WHERE id = ANY ($1::uuid[])`

/** A run that stands here was one of this site when it led: it is over, whatever became of it. */
const applyText = `
  INSERT INTO jobs (id, name, queue, payload, priority, max_attempts, dedupe_key, context, enqueued_at, run_at, attempts,
    interruptions, crashes, cancel_requested_at, outcome, result, error, finished_at, retried, started_at, queued)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, ${instantOf('$9')}, ${instantOf('$10')}, $11, $12, $13, ${instantOf('$14')},
    $15, $16, $17, ${instantOf('$18')}, $19, ${instantOf('$20')}, false)
  ON CONFLICT (id) DO UPDATE SET (name, queue, payload, priority, max_attempts, dedupe_key, context, enqueued_at, run_at,
    attempts, interruptions, crashes, cancel_requested_at, outcome, result, error, finished_at, retried, started_at,
    queued, run_token, runner, progress, checkpoint)
    = (excluded.name, excluded.queue, excluded.payload, excluded.priority, excluded.max_attempts, excluded.dedupe_key,
    excluded.context, excluded.enqueued_at, excluded.run_at, excluded.attempts, excluded.interruptions, excluded.crashes,
    excluded.cancel_requested_at, excluded.outcome, excluded.result, excluded.error, excluded.finished_at,
    excluded.retried, excluded.started_at, false, NULL, NULL, NULL, NULL)`

/** Rows of the ledger. Retention is what removes them, so one that is gone is only forgotten. */
export function createReplicatedJob(): ReplicatedType {
  return {
    type: 'job',
    absentKind: 'forget',
    read: async (ids, database) => {
      const { rows } = await database.query<JobContent & Record<string, unknown>>({
        name: 'replicated-job-read',
        text: readText,
        values: [ids.filter(isId)],
      })
      return new Map(rows.map((row) => [row.id, { content: contentOf(row), account: null }]))
    },
    scan: async (after, limit, database) => {
      const { rows } = await database.query<{ id: string }>(
        `SELECT id FROM jobs ${after === undefined ? '' : 'WHERE id > $2'} ORDER BY id LIMIT $1`,
        after === undefined ? [limit] : [limit, after],
      )
      return rows.map(({ id }) => id)
    },
    apply: ({ content }, client) => apply(JSON.parse(content) as JobContent, client),
    remove: async (id, client) => {
      if (isId(id)) await client.query('DELETE FROM jobs WHERE id = $1', [id])
    },
  }
}

/** In the order of the content and of the parameters. */
const fields = [
  'id',
  'name',
  'queue',
  'payload',
  'priority',
  'maxAttempts',
  'dedupeKey',
  'context',
  'enqueuedAt',
  'runAt',
  'attempts',
  'interruptions',
  'crashes',
  'cancelRequestedAt',
  'outcome',
  'result',
  'error',
  'finishedAt',
  'retried',
  'startedAt',
] satisfies (keyof JobContent)[]

const contentOf = (row: JobContent): string => JSON.stringify(row, fields)

async function apply(job: JobContent, client: Queryable): Promise<void> {
  try {
    await client.query({
      name: 'replicated-job-apply',
      text: applyText,
      values: fields.map((field) => job[field]),
    })
  } catch (error) {
    if (codeOf(error) !== '23505' || job.dedupeKey === null) throw error
    // Jobs are told shard by shard: that the former holder of the key has finished may come after its heir.
    throw JOB_KEY_TAKEN({ id: job.id, name: job.name }, { cause: error })
  }
}
