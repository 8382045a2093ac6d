import pg from 'pg'
import { withLimit } from '../../core/lifecycle.ts'
import { databaseError } from './postgres.ts'

/** One connection of its own, for what needs a session: listening, advisory locks, migrations. */
export interface Session {
  readonly client: pg.Client
  /** Resolves when the connection is gone, whoever ended it. */
  readonly ended: Promise<void>
  /** Never takes longer than a second. */
  close(): Promise<void>
  /** Cuts the connection without a word, also when nobody answers any more. */
  destroy(): void
}

/**
 * @param queryTimeoutMs longest wait for an answer; none unless said
 * @throws DATABASE_UNAVAILABLE, DATABASE_OVERLOADED
 */
export async function connectOnce(
  url: string,
  applicationName: string,
  queryTimeoutMs?: number,
): Promise<Session> {
  const client = new pg.Client({
    connectionString: url,
    application_name: applicationName,
    connectionTimeoutMillis: 5_000,
    // A connection that only listens would not notice for hours that the other side is gone.
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    ...(queryTimeoutMs === undefined ? {} : { query_timeout: queryTimeoutMs }),
  })
  const { promise: ended, resolve } = Promise.withResolvers<void>()
  client.on('end', () => resolve())
  // Losing it is told by `ended`; without a listener it would end the process.
  client.on('error', () => resolve())
  try {
    await client.connect()
  } catch (error) {
    await client.end().catch(() => undefined)
    throw databaseError(error)
  }
  const destroy = (): void => void client.connection.stream.destroy()
  return {
    client,
    ended,
    close: () => withLimit(client.end(), 1_000).catch(destroy),
    destroy,
  }
}
