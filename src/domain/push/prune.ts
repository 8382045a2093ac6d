import type { Postgres } from '../../platform/postgres/postgres.ts'

const bite = 5_000
const lockKey = 0x7075_7368

/**
 * Deletes pushes that were closed long ago, in bites. Ids begin with their time, so the primary key finds the
 * old ones. One process does it at a time; the others go on.
 *
 * @returns how many
 */
export async function prunePushes(postgres: Postgres, retentionMs: number): Promise<number> {
  let pruned = 0
  for (;;) {
    const count = await pruneSome(postgres, retentionMs)
    pruned += count
    if (count < bite) return pruned
  }
}

const pruneSome = (postgres: Postgres, retentionMs: number): Promise<number> =>
  postgres.transaction(async (client) => {
    const { rows } = await client.query<{ mine: boolean }>('SELECT pg_try_advisory_xact_lock($1) AS mine', [
      lockKey,
    ])
    if (!rows[0]?.mine) return 0
    const { rowCount } = await client.query(
      `DELETE FROM pushes WHERE (id, device) IN (
         SELECT id, device FROM pushes
          WHERE id < (lpad(to_hex((extract(epoch FROM now() - $1 * interval '1 ms') * 1000)::bigint), 12, '0')
                      || repeat('0', 20))::uuid
            AND closed_at < now() - $1 * interval '1 ms'
          LIMIT $2)`,
      [retentionMs, bite],
    )
    return rowCount ?? 0
  })
