import type { Client, Postgres, Queryable } from '../../../src/platform/postgres/postgres.ts'
import type { ReplicatedType } from '../../../src/platform/replication/replicated.ts'

// A type of objects over a table of the test's own, captured as the real ones are.

export async function createThings(postgres: Postgres): Promise<void> {
  await postgres.query(`
    CREATE TABLE things (id text COLLATE "C" PRIMARY KEY, value text NOT NULL, owner text);
    CREATE FUNCTION change_things() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF EXISTS (SELECT FROM touched) AND change_admit() THEN
        INSERT INTO change_pending (shard, type, id) SELECT change_shard(id), 'thing', id FROM touched;
      END IF;
      RETURN NULL;
    END $$;
    INSERT INTO change_triggers
      SELECT 'things', name, format('CREATE TRIGGER %s AFTER %s ON things REFERENCING %s TABLE AS touched
        FOR EACH STATEMENT EXECUTE FUNCTION change_things()', name, event, rows)
      FROM (VALUES ('change_inserted', 'INSERT', 'NEW'), ('change_updated', 'UPDATE', 'NEW'),
        ('change_deleted', 'DELETE', 'OLD')) AS t (name, event, rows)`)
}

/** @param options.bad an id whose reading fails */
export const thingType = (
  options: { absentKind?: 'delete' | 'forget'; bad?: string } = {},
): ReplicatedType => ({
  type: 'thing',
  absentKind: options.absentKind ?? 'delete',
  read: async (ids, database) => {
    if (options.bad !== undefined && ids.includes(options.bad)) await database.query('SELECT 1 / 0')
    const { rows } = await database.query<{ id: string; value: string; owner: string | null }>(
      'SELECT id, value, owner FROM things WHERE id = ANY ($1)',
      [ids],
    )
    return new Map(
      rows.map(({ id, value, owner }) => [id, { content: JSON.stringify({ id, value }), account: owner }]),
    )
  },
  scan: async (after, limit, database) => {
    const { rows } = await database.query<{ id: string }>(
      'SELECT id FROM things WHERE $1::text IS NULL OR id > $1 ORDER BY id LIMIT $2',
      [after ?? null, limit],
    )
    return rows.map(({ id }) => id)
  },
  apply: async ({ id, content }, client) => {
    const { value } = JSON.parse(content) as { value: string }
    await client.query(
      'INSERT INTO things (id, value) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET value = excluded.value',
      [id, value],
    )
  },
  remove: async (id, client) => {
    await client.query('DELETE FROM things WHERE id = $1', [id])
  },
})

export const putThing = (database: Queryable, id: string, value: string) =>
  database.query(
    'INSERT INTO things (id, value) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET value = excluded.value',
    [id, value],
  )

/** The same Postgres, whose transaction loses its connection before statement number `nth` (from 1; its COMMIT is the last). */
export function dyingBefore(postgres: Postgres, nth: number): { postgres: Postgres; died(): boolean } {
  let statements = 0
  let dead = false
  const meet = async (pid: number): Promise<void> => {
    if (++statements !== nth) return
    dead = true
    await postgres.query('SELECT pg_terminate_backend($1)', [pid])
  }
  const transaction: Postgres['transaction'] = (work) =>
    postgres.transaction(async (client) => {
      const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
      const pid = rows[0]?.pid ?? 0
      const query = async (...args: [never]) => {
        await meet(pid)
        return client.query(...args)
      }
      const result = await work(Object.create(client, { query: { value: query } }) as Client)
      await meet(pid)
      return result
    })
  return {
    postgres: Object.create(postgres, { transaction: { value: transaction } }) as Postgres,
    died: () => dead,
  }
}
