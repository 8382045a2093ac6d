import { messageOf } from '../../../core/errors.ts'
import type { Postgres } from '../../../platform/postgres/postgres.ts'
import { STATE_SOURCE_UNREADABLE } from '../errors.ts'
import type { BucketSurvey } from '../store.ts'

interface SurveyRow {
  device: string
  fingerprint: string
  bucket: string
  [column: string]: unknown
}

/** bucketOf (state-key.ts) in SQL. */
export const bucketSql = (column: string): string =>
  `right(${column}, 1) || '/' || CASE WHEN length(${column}) > 1 THEN left(right(${column}, 2), 1) ELSE '' END`

const batchRows = 2_000

/**
 * Buckets of devices out of a statement that is ordered by bucket, by a cursor, so that a hundred thousand devices
 * are never in memory at once. Tables tell no mark: one pass over the rows, without their data, is the look.
 */
export async function* surveyRows(
  database: Postgres,
  sql: string,
  signal?: AbortSignal,
): AsyncIterable<BucketSurvey> {
  let open: BucketSurvey | undefined
  for await (const row of cursorRows(database, sql, signal)) {
    if (open && open.bucket !== row.bucket) {
      yield open
      open = undefined
    }
    open ??= { bucket: row.bucket, changed: true, devices: [], strays: [] }
    open.devices.push({ device: row.device, fingerprint: row.fingerprint })
  }
  if (open) yield open
}

async function* cursorRows(database: Postgres, sql: string, signal?: AbortSignal): AsyncIterable<SurveyRow> {
  const client = await database.pool.connect().catch((error: unknown) => {
    throw STATE_SOURCE_UNREADABLE({ place: 'the database', reason: messageOf(error) }, { cause: error })
  })
  // Without a listener, losing a checked-out connection would end the process.
  const onError = (): void => undefined
  client.on('error', onError)
  let broken = true
  try {
    await client.query('BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY')
    await client.query(`DECLARE survey NO SCROLL CURSOR FOR ${sql}`)
    while (!signal?.aborted) {
      const { rows } = await client.query<SurveyRow>(`FETCH ${batchRows} FROM survey`)
      yield* rows
      if (rows.length < batchRows) break
    }
    await client.query('COMMIT')
    broken = false
  } finally {
    client.off('error', onError)
    client.release(broken)
  }
}
