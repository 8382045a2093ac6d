import type { Client, Postgres } from '../../platform/postgres/postgres.ts'
import type { ReplicatedType } from '../../platform/replication/replicated.ts'

/** Hands over what was there before the triggers: docs/protocols/sync.md, section 2. */
export interface Seeding {
  /** A bite of one type, with its bookmark in the same transaction. @returns true when all is handed over */
  step(): Promise<boolean>
  /** False also of a site that does not lead. */
  isDone(): Promise<boolean>
}

export interface SeedingOptions {
  postgres: Postgres
  /** In the order in which they are handed over. */
  types: readonly ReplicatedType[]
  /** Objects of a bite. Default 1,000. */
  batch?: number
}

export function createSeeding({ postgres, types, batch = 1_000 }: SeedingOptions): Seeding {
  const remaining = async (): Promise<readonly ReplicatedType[]> => {
    const { rows } = await postgres.query<{ role: string; done: string[] }>(
      'SELECT role, ARRAY(SELECT type FROM sync_seeds WHERE done) AS done FROM site',
    )
    const [site] = rows
    // A replica's objects came with their positions: '*' says that none is to be handed over.
    if (site?.done.includes('*')) return []
    return types.filter(({ type }) => !site?.done.includes(type))
  }
  const leads = async (): Promise<boolean> => {
    const { rows } = await postgres.query<{ role: string }>('SELECT role FROM site')
    return rows[0]?.role === 'leader'
  }

  return {
    isDone: async () => (await leads()) && (await remaining()).length === 0,
    step: async () => {
      if (!(await leads())) return false
      const [next, ...others] = await remaining()
      if (!next) return true
      const isLast = await postgres.transaction((client) => bite(client, next, batch))
      return isLast && others.length === 0
    },
  }
}

/** @returns whether the type is through */
async function bite(client: Client, { type, scan }: ReplicatedType, limit: number): Promise<boolean> {
  await client.query('INSERT INTO sync_seeds (type) VALUES ($1) ON CONFLICT DO NOTHING', [type])
  const { rows } = await client.query<{ after: string | null; done: boolean }>(
    'SELECT after, done FROM sync_seeds WHERE type = $1 FOR UPDATE',
    [type],
  )
  const [bookmark] = rows
  if (bookmark?.done) return true
  const ids = await scan(bookmark?.after ?? undefined, limit, client)
  const isLast = ids.length < limit
  await client.query(
    `INSERT INTO change_pending (shard, type, id)
     SELECT change_shard(change_anchor($1, id)), $1, id FROM unnest($2::text[]) AS id`,
    [type, ids],
  )
  await client.query('UPDATE sync_seeds SET after = coalesce($2, after), done = $3 WHERE type = $1', [
    type,
    ids.at(-1) ?? null,
    isLast,
  ])
  return isLast
}
