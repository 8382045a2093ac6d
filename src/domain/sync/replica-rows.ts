import { toIso } from '../../core/clock.ts'
import type { Queryable } from '../../platform/postgres/postgres.ts'
import { REPLICA_NOT_FOUND } from './protocol-errors.ts'
import type { Policy } from './wire.ts'

/** What is done about objects that somebody changed on the replica past the fence: by type, `*` for the others. */
export type Policies = Record<string, Policy>

export interface ReplicaRow {
  name: string
  url: string
  keySealed: string
  policy: Policies
  paused: boolean
  error: ReplicaError | null
  verifyWantedAt: string | null
  verifiedAt: string | null
  verified: Verified | null
  /** Changes with url, key and policy. */
  revision: string
}

export interface ReplicaError {
  code: string
  message: string
  at: string
}

/** What a verification found. */
export interface Verified {
  objects: number
  /** That were not the same on both sides. */
  differing: number
  /** Of those: written or removed over there again. */
  mended: number
  /** Only on the replica, and never known here: left alone. */
  unknown: number
  /** Whether every object was read anew on both sides. */
  fromRows: boolean
  ms: number
}

export const policyOf = (policies: Policies, type: string): Policy =>
  policies[type] ?? policies['*'] ?? 'report'

interface Selected extends Record<string, unknown> {
  name: string
  url: string
  key_sealed: string
  policy: Policies
  paused: boolean
  error: ReplicaError | null
  verify_wanted_at: Date | null
  verified_at: Date | null
  verified: Verified | null
  revision: string
}

const columns = `name, url, key_sealed, policy, paused, error, verify_wanted_at, verified_at, verified,
  md5(url || key_sealed || policy::text) AS revision`

const instant = (at: Date | null): string | null => (at ? toIso(at.getTime()) : null)

const rowOf = (row: Selected): ReplicaRow => ({
  name: row.name,
  url: row.url,
  keySealed: row.key_sealed,
  policy: row.policy,
  paused: row.paused,
  error: row.error,
  verifyWantedAt: instant(row.verify_wanted_at),
  verifiedAt: instant(row.verified_at),
  verified: row.verified,
  revision: row.revision,
})

export async function listReplicas(database: Queryable): Promise<ReplicaRow[]> {
  const { rows } = await database.query<Selected>(`SELECT ${columns} FROM replicas ORDER BY name`)
  return rows.map(rowOf)
}

export async function findReplica(database: Queryable, name: string): Promise<ReplicaRow | undefined> {
  const { rows } = await database.query<Selected>(`SELECT ${columns} FROM replicas WHERE name = $1`, [name])
  const [row] = rows
  return row && rowOf(row)
}

/** @throws REPLICA_NOT_FOUND */
export async function getReplica(database: Queryable, name: string): Promise<ReplicaRow> {
  const row = await findReplica(database, name)
  if (!row) throw REPLICA_NOT_FOUND({ name })
  return row
}

export async function saveReplica(
  database: Queryable,
  { name, url, keySealed, policy }: Pick<ReplicaRow, 'name' | 'url' | 'keySealed' | 'policy'>,
): Promise<void> {
  await database.query(
    `INSERT INTO replicas (name, url, key_sealed, policy) VALUES ($1, $2, $3, $4)
     ON CONFLICT (name) DO UPDATE SET url = excluded.url, key_sealed = excluded.key_sealed,
       policy = excluded.policy, error = NULL, updated_at = now()`,
    [name, url, keySealed, JSON.stringify(policy)],
  )
}

/** Only where it says something new: people see since when. */
export async function setReplicaError(
  database: Queryable,
  name: string,
  error: ReplicaError | null,
): Promise<void> {
  await database.query(
    `UPDATE replicas SET error = $2, updated_at = now() WHERE name = $1
       AND (error ->> 'code', error ->> 'message') IS DISTINCT FROM ($3::text, $4::text)`,
    [name, error ? JSON.stringify(error) : null, error?.code ?? null, error?.message ?? null],
  )
}

/** How far its answers have been heard: whatever failed up to there is in the quarantine. By shard. */
export async function readHeard(database: Queryable, replica: string): Promise<(number | undefined)[]> {
  const { rows } = await database.query<{ shard: number; pos: string }>(
    'SELECT shard, pos FROM replica_cursors WHERE replica = $1',
    [replica],
  )
  const heard: (number | undefined)[] = []
  for (const { shard, pos } of rows) heard[shard] = Number(pos)
  return heard
}

export interface Heard {
  replica: string
  shard: number
  pos: number
  /** Whether that is the head. */
  even: boolean
}

export async function saveHeard(database: Queryable, { replica, shard, pos, even }: Heard): Promise<void> {
  await database.query({
    name: 'sync-heard',
    text: `INSERT INTO replica_cursors (replica, shard, pos, even_at)
       SELECT $1, $2, $3, CASE WHEN $4 THEN now() END WHERE EXISTS (SELECT FROM replicas WHERE name = $1)
       ON CONFLICT (replica, shard) DO UPDATE SET pos = excluded.pos, moved_at = now(),
         even_at = coalesce(excluded.even_at, replica_cursors.even_at)`,
    values: [replica, shard, pos, even],
  })
}
