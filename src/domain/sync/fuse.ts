import { newId } from '../../core/ids.ts'
import type { Postgres, Queryable } from '../../platform/postgres/postgres.ts'
import { quarantine } from './quarantine.ts'
import type { ChangeRow } from './window.ts'

/** docs/protocols/sync.md, section 4. */
const limits = {
  account: { least: 50, share: 0.05 },
  hour: { least: 200, share: 0.01 },
  emptied: 10,
}

interface AccountCount {
  account: string
  /** Objects that are there now. */
  left: number
  /** Deletes of the last hour. */
  gone: number
}

/**
 * Why these deletes must not be sent without a person's word, for people; undefined when they may.
 * Deletes come in windows of one shard each, so an account that is being emptied is told by its deletes of the last hour.
 */
export async function judgeDeletes(
  database: Queryable,
  replica: string,
  deletes: readonly ChangeRow[],
): Promise<string | undefined> {
  if (deletes.length === 0) return undefined
  return (
    (await judgeSource(database)) ??
    (await judgeHour(database, replica, deletes.length)) ??
    (await judgeAccounts(database, deletes))
  )
}

async function judgeSource(database: Queryable): Promise<string | undefined> {
  const { rows } = await database.query<{ there: number }>(
    `SELECT count(*)::int AS there FROM sync_sentinels n JOIN site s ON s.lineage = n.lineage`,
  )
  const there = rows[0]?.there ?? 0
  return there === 16
    ? undefined
    : `the source has lost ${16 - there} of its 16 sentinels: it is not what it was`
}

async function judgeHour(database: Queryable, replica: string, now: number): Promise<string | undefined> {
  const { rows } = await database.query<{ sent: number }>(
    `SELECT coalesce(sum(deletes), 0)::int AS sent FROM replica_deletes
     WHERE replica = $1 AND minute > now() - interval '1 hour'`,
    [replica],
  )
  const sum = (rows[0]?.sent ?? 0) + now
  if (sum <= limits.hour.least) return undefined
  const counted = await database.query<{ n: string }>(
    `SELECT count(*) AS n FROM changes WHERE kind = 'upsert'`,
  )
  const objects = Number(counted.rows[0]?.n ?? 0) + now
  const most = Math.max(limits.hour.least, objects * limits.hour.share)
  return sum > most
    ? `${sum} deletes within an hour are more than ${Math.floor(most)}, of ${objects} objects`
    : undefined
}

async function judgeAccounts(
  database: Queryable,
  deletes: readonly ChangeRow[],
): Promise<string | undefined> {
  const own = new Map<string, number>()
  for (const { account } of deletes) if (account !== null) own.set(account, (own.get(account) ?? 0) + 1)
  if (own.size === 0) return undefined
  const { rows } = await database.query<AccountCount & Record<string, unknown>>(
    `SELECT a.account,
       (SELECT count(*)::int FROM changes c WHERE c.account = a.account AND c.kind = 'upsert') AS left,
       (SELECT count(*)::int FROM changes c WHERE c.account = a.account AND c.kind = 'delete'
          AND c.at > now() - interval '1 hour') AS gone
     FROM unnest($1::text[]) AS a (account)`,
    [[...own.keys()]],
  )
  for (const { account, left, gone } of rows) {
    const deleted = own.get(account) ?? 0
    const most = Math.max(limits.account.least, (left + deleted) * limits.account.share)
    if (deleted > most)
      return `${deleted} of ${left + deleted} objects of the account ${account} are deleted at once`
    const before = Math.max(gone, deleted)
    if (left === 0 && before >= limits.emptied)
      return `all ${before} objects of the account ${account} are deleted`
  }
  return undefined
}

/** Windows that trip within this are of one incident, and share a plan: else a person had sixteen to approve. */
const incident = `interval '10 seconds'`

/** Holds them back under a plan. @returns its id */
export async function trip(
  postgres: Postgres,
  { replica, reason, now }: { replica: string; reason: string; now: number },
  deletes: readonly ChangeRow[],
): Promise<string> {
  return postgres.transaction(async (client) => {
    const { rows } = await client.query<{ id: string }>(
      `UPDATE replica_fuses SET deletes = deletes + $2 WHERE id = (
         SELECT id FROM replica_fuses WHERE replica = $1 AND approved_at IS NULL AND closed_at IS NULL
           AND at > clock_timestamp() - ${incident} ORDER BY at DESC LIMIT 1 FOR UPDATE)
       RETURNING id`,
      [replica, deletes.length],
    )
    const id = rows[0]?.id ?? newId(now)
    if (!rows[0]) {
      await client.query(
        'INSERT INTO replica_fuses (id, replica, reason, deletes, at) VALUES ($1, $2, $3, $4, clock_timestamp())',
        [id, replica, reason, deletes.length],
      )
    }
    await quarantine(
      client,
      { replica, now: true },
      deletes.map(({ type, id: object }) => ({ type, id: object, kind: 'held', reason, fuse: id })),
    )
    return id
  })
}

/** Of the last hour, by the minute. */
export async function countDeletes(database: Queryable, replica: string, deletes: number): Promise<void> {
  if (deletes === 0) return
  await database.query(
    `INSERT INTO replica_deletes (replica, minute, deletes) VALUES ($1, date_trunc('minute', now()), $2)
     ON CONFLICT (replica, minute) DO UPDATE SET deletes = replica_deletes.deletes + excluded.deletes`,
    [replica, deletes],
  )
}

/** Plans of which nothing is held any more are over. */
export async function closeFuses(database: Queryable, replica: string): Promise<void> {
  await database.query(
    `UPDATE replica_fuses f SET closed_at = now() WHERE replica = $1 AND closed_at IS NULL
       AND NOT EXISTS (SELECT FROM replica_quarantine q WHERE q.fuse = f.id)`,
    [replica],
  )
}

/**
 * What was held for 24 hours without an approval, or with one that ran out, is judged anew: all of it together, so that
 * time alone lets nothing by.
 */
export async function judgeAnew(postgres: Postgres, replica: string, now: number): Promise<void> {
  const { rows } = await postgres.query<{ id: string }>(
    `SELECT id FROM replica_fuses WHERE replica = $1 AND closed_at IS NULL
       AND coalesce(approved_at, at) < now() - interval '24 hours'`,
    [replica],
  )
  if (rows.length === 0) return
  const plans = rows.map(({ id }) => id)
  const deletes = await deletesOf(postgres, replica, plans)
  const reason = await judgeDeletes(postgres, replica, deletes)
  if (reason !== undefined) await trip(postgres, { replica, reason, now }, deletes)
  else {
    await postgres.query(
      'UPDATE replica_quarantine SET fuse = NULL, due_at = now() WHERE replica = $1 AND fuse = ANY ($2)',
      [replica, plans],
    )
  }
  await closeFuses(postgres, replica)
}

async function deletesOf(database: Queryable, replica: string, fuses: string[]): Promise<ChangeRow[]> {
  const { rows } = await database.query<Omit<ChangeRow, 'pos'> & { pos: string }>(
    `SELECT c.type, c.id, c.pos, c.kind, c.hash, c.account FROM replica_quarantine q
     JOIN changes c ON c.type = q.type AND c.id = q.id
     WHERE q.replica = $1 AND q.fuse = ANY ($2) AND c.kind = 'delete'`,
    [replica, fuses],
  )
  return rows.map((row) => ({ ...row, pos: Number(row.pos) }))
}
