import { toIso } from '../../core/clock.ts'
import type { Queryable } from '../postgres/postgres.ts'
import type { JobOrigin } from './ledger.ts'

/** What a row says besides its `JobView`, for whoever looks into what became of a job. */
export interface JobDetails {
  crashes: number
  /** Whether an entry was handed to the queue engine. */
  queued: boolean
  cancelRequestedAt?: string
  dedupeKey?: string
  origin?: JobOrigin
  checkpoint?: { bytes: number; value: unknown }
}

interface DetailsRow {
  crashes: number
  queued: boolean
  cancel_requested_at: Date | null
  dedupe_key: string | null
  context: JobOrigin | null
  checkpoint_bytes: number | null
  checkpoint: unknown
}

/** A larger checkpoint is told of by its size alone. */
const maxCheckpointBytes = 65_536

export async function readJobDetails(postgres: Queryable, id: string): Promise<JobDetails | undefined> {
  const { rows } = await postgres.query<DetailsRow & Record<string, unknown>>(
    `SELECT crashes, queued, cancel_requested_at, dedupe_key, context,
       octet_length(checkpoint::text) AS checkpoint_bytes,
       CASE WHEN octet_length(checkpoint::text) <= ${maxCheckpointBytes} THEN checkpoint END AS checkpoint
     FROM jobs WHERE id = $1`,
    [id],
  )
  const [row] = rows
  return (
    row && {
      crashes: row.crashes,
      queued: row.queued,
      ...(row.cancel_requested_at ? { cancelRequestedAt: toIso(row.cancel_requested_at.getTime()) } : {}),
      ...(row.dedupe_key === null ? {} : { dedupeKey: row.dedupe_key }),
      ...(row.context ? { origin: row.context } : {}),
      ...(row.checkpoint_bytes === null
        ? {}
        : { checkpoint: { bytes: row.checkpoint_bytes, value: row.checkpoint ?? undefined } }),
    }
  )
}
