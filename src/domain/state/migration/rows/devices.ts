import type { Client, Queryable } from '../../../../platform/postgres/postgres.ts'
import type { DeviceMark, DeviceRow, QuarantineLine } from '../migration.ts'

/** A connection that says nothing for so long is taken for dead, and its claim is free. */
const idleSeconds = 60
const beatMs = 15_000

/** Locks the next pending device until the transaction ends. */
export async function claimRow(client: Client, id: string): Promise<DeviceRow | undefined> {
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
            ORDER BY bucket, device LIMIT 1 FOR UPDATE SKIP LOCKED`,
    values: [id],
  })
  const row = rows[0]
  if (!row) return undefined
  return {
    device: row.device,
    bucket: row.bucket,
    tries: row.tries,
    sourceFingerprint: row.source_fingerprint ?? undefined,
    targetFingerprint: row.target_fingerprint ?? undefined,
  }
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

const markSql = `
  UPDATE state_migration_devices
     SET status = $3, states = $4, bytes = $5, digest = coalesce($6, digest),
         source_fingerprint = coalesce($7, source_fingerprint), target_fingerprint = coalesce($8, target_fingerprint),
         users = coalesce($9, users), landmarks = coalesce($10, landmarks), error = $11,
         tries = CASE WHEN $3 IN ('pending', 'failed') THEN tries + 1 ELSE 0 END,
         not_before = now() + $12 * interval '1 ms',
         verified_at = CASE WHEN $3 = 'moved' THEN now() ELSE verified_at END
   WHERE migration = $1 AND device = $2`

export async function writeMark(client: Client, id: string, row: DeviceRow, mark: DeviceMark): Promise<void> {
  const learnt = mark.status === 'moved' || mark.status === 'removed'
  await client.query({
    name: 'state-mark',
    text: markSql,
    values: [
      id,
      row.device,
      mark.status,
      mark.states,
      mark.bytes,
      mark.digest ?? null,
      mark.sourceFingerprint ?? null,
      mark.targetFingerprint ?? null,
      learnt && mark.quarantine ? mark.users : null,
      learnt && mark.quarantine ? mark.landmarks : null,
      mark.error ?? null,
      mark.retryAfterMs ?? null,
    ],
  })
  if (mark.quarantine) await replaceLines(client, id, row.device, mark.quarantine)
}

/** The lines of a device's own states; those of strays are kept by their bucket. */
async function replaceLines(
  client: Client,
  id: string,
  device: string,
  lines: QuarantineLine[],
): Promise<void> {
  await client.query(
    `DELETE FROM state_migration_quarantine
      WHERE migration = $1 AND device = $2 AND bucket IS NULL AND key IS DISTINCT FROM 'link'`,
    [id, device],
  )
  await addLines(client, id, lines)
}

export async function addLines(
  database: Queryable,
  id: string,
  lines: QuarantineLine[],
  bucket?: string,
): Promise<void> {
  if (lines.length === 0) return
  await database.query(
    `INSERT INTO state_migration_quarantine (migration, device, name, reason, held, size, sha256, key, bucket)
     SELECT $1, l.device, decode(l.name, 'hex'), l.reason, l.held, l.size, l.sha256, l.key, $3
       FROM json_to_recordset($2::json) AS l (device text, name text, reason text, held boolean, size bigint,
                                              sha256 text, key text)
     ON CONFLICT (migration, device, name, reason) DO UPDATE
        SET held = excluded.held, size = excluded.size, sha256 = excluded.sha256, key = excluded.key,
            bucket = excluded.bucket`,
    [id, JSON.stringify(lines.map((line) => ({ ...line, name: line.name.toString('hex') }))), bucket ?? null],
  )
}
