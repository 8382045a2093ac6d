import type { Queryable } from '../../platform/postgres/postgres.ts'
import type { ChangeRow } from './window.ts'

/** Objects of a replica that its cursor went past without them. */
export interface Quarantined {
  type: string
  id: string
  kind: 'failed' | 'mismatch' | 'held'
  /** For people. */
  reason: string
  fuse?: string | undefined
}

/** Again counts as another try: a minute, doubling to an hour. `now`: at once. */
export async function quarantine(
  database: Queryable,
  { replica, now = false }: { replica: string; now?: boolean },
  objects: readonly Quarantined[],
): Promise<void> {
  if (objects.length === 0) return
  await database.query(
    `INSERT INTO replica_quarantine AS q (replica, type, id, kind, reason, fuse, due_at)
     SELECT $1, o.type, o.id, o.kind, o.reason, o.fuse, now() + CASE WHEN $7 THEN interval '0' ELSE interval '1 minute' END
     FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::uuid[]) AS o (type, id, kind, reason, fuse)
     ON CONFLICT (replica, type, id) DO UPDATE SET kind = excluded.kind, reason = excluded.reason,
       fuse = excluded.fuse, tries = q.tries + 1,
       due_at = now() + least(interval '1 hour', interval '1 minute' * 2 ^ least(q.tries + 1, 10))`,
    [
      replica,
      objects.map(({ type }) => type),
      objects.map(({ id }) => id),
      objects.map(({ kind }) => kind),
      objects.map(({ reason }) => reason.slice(0, 500)),
      objects.map(({ fuse }) => fuse ?? null),
      now,
    ],
  )
}

export async function release(
  database: Queryable,
  replica: string,
  objects: readonly { type: string; id: string }[],
): Promise<void> {
  if (objects.length === 0) return
  await database.query(
    `DELETE FROM replica_quarantine q USING unnest($2::text[], $3::text[]) AS o (type, id)
     WHERE q.replica = $1 AND q.type = o.type COLLATE "C" AND q.id = o.id COLLATE "C"`,
    [replica, objects.map(({ type }) => type), objects.map(({ id }) => id)],
  )
}

/** Of these, the ones that are held back already. */
export async function heldOf(
  database: Queryable,
  replica: string,
  objects: readonly { type: string; id: string }[],
): Promise<Set<string>> {
  if (objects.length === 0) return new Set()
  const { rows } = await database.query<{ key: string }>(
    `SELECT q.type || ' ' || q.id AS key FROM replica_quarantine q
     JOIN unnest($2::text[], $3::text[]) AS o (type, id)
       ON q.type = o.type COLLATE "C" AND q.id = o.id COLLATE "C"
     WHERE q.replica = $1 AND q.kind = 'held'`,
    [replica, objects.map(({ type }) => type), objects.map(({ id }) => id)],
  )
  return new Set(rows.map(({ key }) => key))
}

export interface Due extends ChangeRow {
  shard: number
  was: Quarantined['kind']
}

interface DueRow extends Record<string, unknown> {
  type: string
  id: string
  was: Quarantined['kind']
  shard: number | null
  pos: string | null
  kind: ChangeRow['kind'] | null
  hash: string | null
  account: string | null
}

/**
 * Those whose time has come, as the change log has them now. What the log has no more, or has as there again after it
 * was to be deleted, leaves the quarantine. Held ones only under an approval that still counts.
 */
export async function dueOf(database: Queryable, replica: string, limit: number): Promise<Due[]> {
  const { rows } = await database.query<DueRow>(
    `SELECT q.type, q.id, q.kind AS was, c.shard, c.pos, c.kind, c.hash, c.account
     FROM replica_quarantine q
     LEFT JOIN changes c ON c.type = q.type AND c.id = q.id
     LEFT JOIN replica_fuses f ON f.id = q.fuse
     WHERE q.replica = $1 AND q.due_at <= now()
       AND (q.kind <> 'held' OR q.fuse IS NULL OR f.approved_at > now() - interval '24 hours' OR c.kind = 'upsert')
     ORDER BY q.due_at LIMIT $2`,
    [replica, limit],
  )
  const over = rows.filter(({ kind, was }) => kind === null || (was === 'held' && kind === 'upsert'))
  await release(database, replica, over)
  return rows.flatMap(({ type, id, was, shard, pos, kind, hash, account }) =>
    shard === null || pos === null || kind === null || (was === 'held' && kind === 'upsert')
      ? []
      : [{ type, id, was, shard, pos: Number(pos), kind, hash, account }],
  )
}
