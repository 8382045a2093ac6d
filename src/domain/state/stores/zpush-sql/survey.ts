import type { Postgres } from '../../../../platform/postgres/postgres.ts'
import type { BucketSurvey } from '../../store.ts'
import { bucketSql, surveyRows } from '../sql-survey.ts'

/** One row a device; the fingerprint must be what digestRows computes. */
const surveySql = `
  SELECT device_id AS device, md5(string_agg(id_state || ':' || xmin, ',' ORDER BY id_state)) AS fingerprint,
         ${bucketSql('device_id')} AS bucket
    FROM states GROUP BY device_id ORDER BY (${bucketSql('device_id')}) COLLATE "C", device_id COLLATE "C"`

/** Rows that no migration can move: a type that Z-Push does not have, and the older ones of double rows. */
const straySql = `
  SELECT device_id AS device, state_type AS type, uuid, counter, coalesce(octet_length(state_data), 0) AS size,
         state_type IS NULL OR state_type NOT IN ('', 'devicedata', 'fd', 'fs', 'hc', 'bs') AS unknown
    FROM states s
   WHERE state_type IS NULL OR state_type NOT IN ('', 'devicedata', 'fd', 'fs', 'hc', 'bs')
      OR (uuid IS NULL AND EXISTS (
           SELECT FROM states t WHERE t.device_id = s.device_id AND t.uuid IS NULL AND t.state_type = s.state_type
              AND t.counter = s.counter AND t.id_state > s.id_state))
   ORDER BY id_state LIMIT 10000`

export async function* surveyTables(database: Postgres, signal?: AbortSignal): AsyncIterable<BucketSurvey> {
  const { rows } = await database.query<{
    device: string
    type: string | null
    uuid: string | null
    counter: number
    size: number
    unknown: boolean
  }>(straySql)
  if (rows.length > 0) {
    const strays = rows.map((row) => ({
      name: Buffer.from(`row ${row.device} ${row.type ?? 'NULL'} ${row.uuid ?? '-'} ${row.counter}`),
      device: row.device,
      code: row.unknown ? 'unknown-type-xx' : 'duplicate-row',
      size: row.size,
    }))
    yield { bucket: '', changed: true, devices: [], strays }
  }
  yield* surveyRows(database, surveySql, signal)
}

/**
 * One pass over the rows without their data. The server's own counters of writes lag behind by a second, which is too
 * much to decide by that nobody writes any more.
 */
export async function readActivity(database: Postgres): Promise<string> {
  const { rows } = await database.query<{ activity: string }>(
    `SELECT (SELECT count(*) || ' ' || coalesce(sum(hashtextextended(id_state || ':' || xmin, 0)), 0) FROM states)
         || ' ' || (SELECT count(*) || ' ' || coalesce(sum(hashtextextended(username || xmin, 0)), 0) FROM users)
         AS activity`,
  )
  return rows[0]?.activity ?? ''
}
