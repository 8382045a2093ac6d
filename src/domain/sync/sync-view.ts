import { toIso } from '../../core/clock.ts'
import type { Queryable } from '../../platform/postgres/postgres.ts'
import type { Site, SiteState } from '../../platform/replication/site.ts'
import {
  listReplicas,
  type Policies,
  type ReplicaError,
  type ReplicaRow,
  type Verified,
} from './replica-rows.ts'

/** What this site is, and how its replicas are, for people and monitors. */
export interface SyncView {
  site: SiteState & {
    name: string
    /** Changes that have no position yet, and the age of the oldest, seconds. */
    pending: { changes: number; seconds: number }
    /** Whether all that was there before the first replica is handed over; per type how far. */
    seeding: { done: boolean; types: { type: string; done: boolean; after: string | null }[] }
  }
  replicas: ReplicaView[]
}

export interface ReplicaView {
  name: string
  url: string
  policy: Policies
  paused: boolean
  error: ReplicaError | null
  /** Of what is numbered and not there yet; seconds: age of the oldest, with what is not numbered. */
  lag: { changes: number; seconds: number }
  quarantine: {
    failed: number
    mismatch: number
    held: number
    first: { type: string; id: string; kind: string; reason: string; tries: number; since: string }[]
  }
  /** Plans of deletes that wait for `approve`. */
  fuses: FuseView[]
  verifyWantedAt: string | null
  verifiedAt: string | null
  verified: Verified | null
}

export interface FuseView {
  plan: string
  reason: string
  deletes: number
  at: string
  approvedAt: string | null
  approvedBy: string | null
  /** After which `approve` is refused. */
  expiresAt: string
  examples: { type: string; id: string }[]
}

export async function readSync(
  database: Queryable,
  { site, name, types }: { site: Pick<Site, 'read'>; name: string; types: readonly string[] },
): Promise<SyncView> {
  const [state, pending, seeds, rows] = await Promise.all([
    site.read(database),
    readPending(database),
    database.query<{ type: string; done: boolean; after: string | null }>(
      'SELECT type, done, after FROM sync_seeds ORDER BY type',
    ),
    listReplicas(database),
  ])
  const isWhole = state.role !== 'leader' || seeds.rows.some(({ type }) => type === '*')
  // A type that was not begun has no row yet.
  const seeded = types.map(
    (type) => seeds.rows.find((row) => row.type === type) ?? { type, done: false, after: null },
  )
  const seeding = { done: isWhole || seeded.every((each) => each.done), types: isWhole ? [] : seeded }
  return {
    site: { ...state, name, pending, seeding },
    replicas: await Promise.all(rows.map((row) => viewReplica(database, row))),
  }
}

async function readPending(database: Queryable): Promise<{ changes: number; seconds: number }> {
  const { rows } = await database.query<{ changes: number; seconds: number }>(
    `SELECT count(*)::int AS changes,
       coalesce(extract(epoch FROM clock_timestamp() - min(at)), 0)::float8 AS seconds FROM change_pending`,
  )
  return rows[0] ?? { changes: 0, seconds: 0 }
}

export async function viewReplica(database: Queryable, row: ReplicaRow): Promise<ReplicaView> {
  const { name, url, policy, paused, error, verifyWantedAt, verifiedAt, verified } = row
  const [lag, quarantine, fuses] = await Promise.all([
    readLag(database, name),
    readQuarantine(database, name),
    readFuses(database, name),
  ])
  return { name, url, policy, paused, error, lag, quarantine, fuses, verifyWantedAt, verifiedAt, verified }
}

/** A million rows would be counted in seconds: beyond this the difference of positions stands for them. */
const countedRows = 10_000

export async function readLag(
  database: Queryable,
  replica: string,
): Promise<{ changes: number; seconds: number }> {
  const { rows } = await database.query<{ changes: number; seconds: number }>(
    `WITH behind AS (
       SELECT h.shard, h.pos AS head, coalesce(c.pos, 0) AS pos FROM change_heads h
       LEFT JOIN replica_cursors c ON c.shard = h.shard AND c.replica = $1
       WHERE h.pos > coalesce(c.pos, 0)),
     counted AS (
       SELECT b.head - b.pos AS span,
         (SELECT count(*) FROM (SELECT FROM changes x WHERE x.shard = b.shard AND x.pos > b.pos LIMIT ${countedRows}) r) AS rows,
         (SELECT min(at) FROM (SELECT at FROM changes x WHERE x.shard = b.shard AND x.pos > b.pos
            ORDER BY x.pos LIMIT 100) r) AS oldest
       FROM behind b)
     SELECT coalesce(sum(CASE WHEN rows < ${countedRows} THEN rows ELSE span END), 0)::float8 AS changes,
       greatest(0, coalesce(extract(epoch FROM clock_timestamp()
         - least(min(oldest), (SELECT min(at) FROM change_pending))), 0))::float8 AS seconds
     FROM counted`,
    [replica],
  )
  return rows[0] ?? { changes: 0, seconds: 0 }
}

async function readQuarantine(database: Queryable, replica: string): Promise<ReplicaView['quarantine']> {
  const counted = await database.query<{ kind: 'failed' | 'mismatch' | 'held'; n: number }>(
    'SELECT kind, count(*)::int AS n FROM replica_quarantine WHERE replica = $1 GROUP BY kind',
    [replica],
  )
  const { rows } = await database.query<{
    type: string
    id: string
    kind: string
    reason: string
    tries: number
    since: Date
  }>(
    `SELECT type, id, kind, reason, tries, since FROM replica_quarantine
     WHERE replica = $1 AND kind <> 'held' ORDER BY since LIMIT 10`,
    [replica],
  )
  const counts = { failed: 0, mismatch: 0, held: 0 }
  for (const { kind, n } of counted.rows) counts[kind] = n
  return { ...counts, first: rows.map((row) => ({ ...row, since: toIso(row.since.getTime()) })) }
}

const dayMs = 86_400_000

async function readFuses(database: Queryable, replica: string): Promise<FuseView[]> {
  const { rows } = await database.query<{
    id: string
    reason: string
    deletes: number
    at: Date
    approved_at: Date | null
    approved_by: string | null
    examples: { type: string; id: string }[] | null
  }>(
    `SELECT f.id, f.reason, f.deletes, f.at, f.approved_at, f.approved_by,
       (SELECT json_agg(json_build_object('type', e.type, 'id', e.id)) FROM (
          SELECT type, id FROM replica_quarantine q WHERE q.fuse = f.id ORDER BY type, id LIMIT 5) e) AS examples
     FROM replica_fuses f WHERE f.replica = $1 AND f.closed_at IS NULL ORDER BY f.at`,
    [replica],
  )
  return rows.map((row) => ({
    plan: row.id,
    reason: row.reason,
    deletes: row.deletes,
    at: toIso(row.at.getTime()),
    approvedAt: row.approved_at ? toIso(row.approved_at.getTime()) : null,
    approvedBy: row.approved_by,
    expiresAt: toIso(row.at.getTime() + dayMs),
    examples: row.examples ?? [],
  }))
}

export interface SyncFigures {
  leads: boolean
  pending: number
  replicas: {
    name: string
    lag: { changes: number; seconds: number }
    quarantine: { failed: number; mismatch: number; held: number }
    fuses: number
    verifyAgeSeconds: number | undefined
    differing: number | undefined
  }[]
}

/** For the metrics; one cheap look on a site without replicas. */
export async function readSyncFigures(database: Queryable): Promise<SyncFigures> {
  const rows = await listReplicas(database)
  const leads = rows.length > 0
  const pending = leads ? (await readPending(database)).changes : 0
  const replicas = await Promise.all(
    rows.map(async (row) => {
      const { name, lag, quarantine, fuses, verified } = await viewReplica(database, row)
      const age = await verifyAge(database, name)
      return {
        name,
        lag,
        quarantine,
        fuses: fuses.length,
        verifyAgeSeconds: age,
        differing: verified?.differing,
      }
    }),
  )
  return { leads, pending, replicas }
}

async function verifyAge(database: Queryable, name: string): Promise<number | undefined> {
  const { rows } = await database.query<{ age: number | null }>(
    'SELECT extract(epoch FROM now() - verified_at)::float8 AS age FROM replicas WHERE name = $1',
    [name],
  )
  return rows[0]?.age ?? undefined
}
