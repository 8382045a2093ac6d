import type { Postgres, Queryable } from '../../platform/postgres/postgres.ts'
import type { CopyChange } from './catalog.ts'

/** Wishes for the repair of bodies that have a row; a repeated wish is due at once. */
export async function wishAll(database: Queryable, wishes: { id: string; reason: string }[]): Promise<void> {
  await database.query(
    `INSERT INTO body_repairs (body, reason)
     SELECT id, reason FROM unnest($1::text[], $2::text[]) AS given (id, reason)
     WHERE EXISTS (SELECT FROM bodies WHERE bodies.id = given.id) ORDER BY id
     ON CONFLICT (body) DO UPDATE SET wish = body_repairs.wish + 1, due_at = now(), reason = EXCLUDED.reason`,
    [wishes.map(({ id }) => id), wishes.map(({ reason }) => reason)],
  )
}

export async function wishOf(database: Queryable, id: string): Promise<string | undefined> {
  const { rows } = await database.query<{ wish: string }>('SELECT wish FROM body_repairs WHERE body = $1', [
    id,
  ])
  return rows[0]?.wish
}

export async function fulfil(postgres: Postgres, id: string, change: CopyChange): Promise<void> {
  await postgres.transaction(async (client) => {
    await client.query(
      `UPDATE bodies SET
         stores = ARRAY(SELECT DISTINCT name FROM unnest(stores || $2::text[]) AS name
                        WHERE NOT name = ANY ($3::text[]) OR name = ANY ($2::text[]) ORDER BY 1),
         checked_at = CASE WHEN $4 THEN now() ELSE checked_at END
       WHERE id = $1`,
      [id, change.added, change.removed, change.checked],
    )
    if (change.wish !== undefined) {
      await client.query('DELETE FROM body_repairs WHERE body = $1 AND wish = $2', [id, change.wish])
    }
  })
}

export async function postpone(
  database: Queryable,
  { id, wish, error }: { id: string; wish: string; error: string },
): Promise<void> {
  await database.query(
    `UPDATE body_repairs SET attempts = attempts + 1, error = $3,
       due_at = now() + least(interval '1 hour', interval '5 seconds' * 2 ^ least(attempts, 20)) * (0.5 + random() / 2)
     WHERE body = $1 AND wish = $2`,
    [id, wish, error],
  )
}

export async function claimDue(database: Queryable, limit: number, leaseMs: number): Promise<string[]> {
  const { rows } = await database.query<{ body: string }>(
    `UPDATE body_repairs SET due_at = now() + $2 * interval '1 millisecond'
     WHERE body IN (SELECT body FROM body_repairs WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
     RETURNING body`,
    [limit, leaseMs],
  )
  return rows.map((row) => row.body)
}

export async function withdraw(
  postgres: Postgres,
  { id, store }: { id: string; store: string },
  remove: () => Promise<unknown>,
): Promise<boolean> {
  return postgres.transaction(async (client) => {
    const { rowCount } = await client.query(
      `UPDATE bodies SET stores = array_remove(stores, $2)
       WHERE id = $1 AND touched_at < now() - interval '1 hour' AND cardinality(array_remove(stores, $2)) > 0`,
      [id, store],
    )
    if (rowCount === 0) return false
    await remove()
    return true
  })
}
