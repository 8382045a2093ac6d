import type { Client, Postgres } from '../../../../platform/postgres/postgres.ts'

/**
 * Who leads a migration: whoever holds an advisory lock on a connection of its own. It is free the moment that the
 * leader or its connection is gone, and no clock is asked.
 */
export interface Leadership {
  /** Takes the lead or makes sure of it. @returns whether this engine leads now */
  hold(id: string, engine: string): Promise<boolean>
  drop(id: string, engine: string): Promise<void>
}

/** A machine that vanished without a word is noticed by the server within ten seconds or so. */
const keepAlives =
  'SET tcp_keepalives_idle = 4; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; SET idle_session_timeout = 0'

export function createLeadership(database: Postgres): Leadership {
  const held = new Map<string, Client>()

  const forget = (name: string): void => {
    const client = held.get(name)
    held.delete(name)
    // Its session has a lock and settings of its own: nobody else may have it.
    client?.release(true)
  }

  const take = async (id: string, name: string): Promise<boolean> => {
    const client = await database.pool.connect()
    // A connection that is lost says so by an event; the next question finds out.
    client.on('error', () => undefined)
    try {
      await client.query(keepAlives).catch(() => undefined)
      const { rows } = await client.query<{ locked: boolean }>(
        'SELECT pg_try_advisory_lock(hashtextextended($1, 31)) AS locked',
        [`state migration ${id}`],
      )
      if (rows[0]?.locked) {
        held.set(name, client)
        return true
      }
    } catch (error) {
      client.release(true)
      throw error
    }
    client.release(true)
    return false
  }

  return {
    hold: async (id, engine) => {
      const name = `${engine} ${id}`
      const client = held.get(name)
      if (!client) return take(id, name)
      try {
        await client.query('SELECT 1')
        return true
      } catch {
        forget(name)
        return take(id, name)
      }
    },
    drop: async (id, engine) => forget(`${engine} ${id}`),
  }
}
