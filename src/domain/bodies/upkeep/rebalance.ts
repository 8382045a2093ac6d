import type { Postgres } from '../../../platform/postgres/postgres.ts'
import type { BodyStore } from '../body-store.ts'
import { orderFor } from '../placement.ts'

/** Pages through all rows and wishes for a repair where the copies do not lie where they should; yields the ids. */
export async function* rebalance(
  postgres: Postgres,
  active: readonly BodyStore[],
  copies: number,
): AsyncGenerator<string> {
  for (let after = ''; ; ) {
    const { rows } = await postgres.query<{ id: string; stores: string[] }>(
      `SELECT id, stores FROM bodies WHERE id > $1 AND stores <> '{}' ORDER BY id LIMIT 1000`,
      [after],
    )
    const misplaced = rows.filter(
      ({ id, stores }) => !isPlaced(stores, orderFor(id, active).slice(0, copies)),
    )
    await postgres.query(
      `INSERT INTO body_repairs (body, reason) SELECT id, 'it lies elsewhere than it should' FROM unnest($1::text[]) AS id
       ORDER BY id ON CONFLICT (body) DO NOTHING`,
      [misplaced.map(({ id }) => id)],
    )
    for (const { id } of misplaced) yield id
    if (rows.length < 1_000) return
    after = rows.at(-1)?.id ?? ''
  }
}

const isPlaced = (stores: string[], wanted: BodyStore[]): boolean =>
  stores.length === wanted.length && wanted.every(({ name }) => stores.includes(name))
