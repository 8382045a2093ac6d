import type { Client, Queryable } from '../../../../platform/postgres/postgres.ts'
import type { DeviceMark, DeviceRow, QuarantineLine } from '../migration.ts'

/** A connection that says nothing for so long is taken for dead, and its claim is free. */
const idleSeconds = 60
const beatMs = 15_000

/** Locks the next pending devices until the transaction ends. */
export async function claimRows(client: Client, id: string, most: number): Promise<DeviceRow[]> {
  const { rows } = await client.query<{
    device: string
    bucket: string
    tries: number
    source_fingerprint: string | null
    target_fingerprint: string | null
  }>({
    name: 'state-claim',
    text: `SELECT device, bucket, tries, source_fingerprint, target_fingerprint,
                  set_config('idle_in_transaction_session_timeout', '${idleSeconds}s', true) AS dead_after
             FROM state_migration_devices
            WHERE migration = $1 AND status = 'pending' AND (not_before IS NULL OR not_before <= now())
              AND EXISTS (SELECT FROM state_migrations
                           WHERE id = $1 AND NOT paused AND wanted IS DISTINCT FROM 'cancel')
            ORDER BY bucket, device LIMIT $2 FOR UPDATE SKIP LOCKED`,
    values: [id, most],
  })
  return rows.map((row) => ({
    device: row.device,
    bucket: row.bucket,
    tries: row.tries,
    sourceFingerprint: row.source_fingerprint ?? undefined,
    targetFingerprint: row.target_fingerprint ?? undefined,
  }))
}

/** Speaks on the claim's connection while a long copy goes on elsewhere. */
export function keepAlive(client: Client): { stop(): Promise<void> } {
  let beating = Promise.resolve()
  const beat = (): void => {
    beating = client.query('SELECT 1').then(
      () => undefined,
      () => undefined,
    )
  }
  const timer = setInterval(beat, beatMs)
  return {
    stop: async () => {
      clearInterval(timer)
      await beating
    },
  }
}

/** What is not known in a mark stays as it was. */
const markSql = `
  UPDATE state_migration_devices d
     SET status = m.status, states = m.states, bytes = m.bytes, digest = coalesce(m.digest, d.digest),
         source_fingerprint = coalesce(m.source, d.source_fingerprint),
         target_fingerprint = coalesce(m.target, d.target_fingerprint),
         users = CASE WHEN m.users IS NULL THEN d.users
                      ELSE ARRAY(SELECT decode(u, 'hex') FROM json_array_elements_text(m.users) u) END,
         landmarks = CASE WHEN m.landmarks IS NULL THEN d.landmarks
                          ELSE ARRAY(SELECT json_array_elements_text(m.landmarks)) END,
         error = m.error,
         tries = CASE WHEN m.status IN ('pending', 'failed') THEN d.tries + 1 ELSE 0 END,
         not_before = now() + m.retry * interval '1 ms',
         verified_at = CASE WHEN m.status = 'moved' THEN now() ELSE d.verified_at END
    FROM json_to_recordset($2::json) AS m (device text, status text, states integer, bytes bigint, digest text,
           source text, target text, users json, landmarks json, error text, retry float8)
   WHERE d.migration = $1 AND d.device = m.device`

/** @param known devices that were moved before, and so may have lines */
export async function writeMarks(
  client: Client,
  id: string,
  marks: Map<string, DeviceMark>,
  known: ReadonlySet<string>,
): Promise<void> {
  const rows = [...marks].map(([device, mark]) => ({
    device,
    status: mark.status,
    states: mark.states,
    bytes: mark.bytes,
    digest: mark.digest,
    source: mark.sourceFingerprint,
    target: mark.targetFingerprint,
    ...(mark.quarantine
      ? { users: mark.users.map((user) => user.toString('hex')), landmarks: mark.landmarks }
      : {}),
    error: mark.error,
    retry: mark.retryAfterMs,
  }))
  await client.query({ name: 'state-mark', text: markSql, values: [id, JSON.stringify(rows)] })
  const inspected = [...marks].filter(([, mark]) => mark.quarantine)
  const again = inspected.map(([device]) => device).filter((device) => known.has(device))
  if (again.length > 0) {
    // The lines of a device's own states; those of strays are kept by their bucket.
    await client.query(
      `DELETE FROM state_migration_quarantine
        WHERE migration = $1 AND device = ANY($2) AND bucket IS NULL AND key IS DISTINCT FROM 'link'`,
      [id, again],
    )
  }
  await addLines(
    client,
    id,
    inspected.flatMap(([, mark]) => mark.quarantine ?? []),
  )
}

/** @param lines those of strays with the bucket that they were seen in */
export async function addLines(
  database: Queryable,
  id: string,
  lines: (QuarantineLine & { bucket?: string })[],
): Promise<void> {
  if (lines.length === 0) return
  await database.query(
    `INSERT INTO state_migration_quarantine (migration, device, name, reason, held, size, sha256, key, bucket)
     SELECT DISTINCT ON (l.device, l.name, l.reason)
            $1::uuid, l.device, decode(l.name, 'hex'), l.reason, l.held, l.size, l.sha256, l.key, l.bucket
       FROM json_to_recordset($2::json) AS l (device text, name text, reason text, held boolean, size bigint,
                                              sha256 text, key text, bucket text)
     ON CONFLICT (migration, device, name, reason) DO UPDATE
        SET held = excluded.held, size = excluded.size, sha256 = excluded.sha256, key = excluded.key,
            bucket = excluded.bucket`,
    [id, JSON.stringify(lines.map((line) => ({ ...line, name: line.name.toString('hex') })))],
  )
}
