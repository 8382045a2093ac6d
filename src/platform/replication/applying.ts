import type { Client, Postgres } from '../postgres/postgres.ts'

/** The row is held, so that no promotion comes between: what is written after it has to be captured. */
const applySql = `SELECT set_config('baton.applying', 'on', true) FROM site WHERE role = 'replica' FOR SHARE`

/**
 * The same database for who writes what the leader sent by rooms that know nothing of sites: as long as this site is a
 * replica, each statement and each transaction is applying. Otherwise they are as any other: fenced and captured.
 * A statement by itself takes a transaction, so this is not for reading.
 */
export function createApplyingPostgres(postgres: Postgres): Postgres {
  const transaction = <T>(work: (client: Client) => Promise<T>): Promise<T> =>
    postgres.transaction(async (client) => {
      await client.query(applySql)
      return work(client)
    })
  return {
    ...postgres,
    transaction,
    query: (sql, values) => transaction((client) => client.query(sql, values)),
  }
}
