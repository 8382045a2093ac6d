import pg from 'pg'
import { type BatonError, codeOf, messageOf } from '../../core/errors.ts'
import { createConnectionBreaker } from './connection-breaker.ts'
import { dropIdle, isUnanswered } from './dead-connections.ts'
import { DATABASE_OVERLOADED, DATABASE_UNAVAILABLE, SITE_CLOSED } from './errors.ts'

/** One statement's connection inside a transaction. */
export type Client = pg.PoolClient
export type Row = pg.QueryResultRow

/** Whatever statements can be sent to: the pool, or a transaction's client. */
export interface Queryable {
  query<R extends Row>(
    sql: string | Statement,
    values?: unknown[],
  ): Promise<{ rows: R[]; rowCount: number | null }>
}

/** A statement with a name is prepared once a connection: parse and plan are paid for once. */
export interface Statement {
  name?: string
  text: string
  values?: unknown[]
  /** Longest wait for the answer, ms, instead of that of the pool. By the name that the driver reads. */
  query_timeout?: number
}

export interface Postgres extends Queryable {
  /** Commits what `work` did, or rolls back when it throws. A connection whose state is unknown is destroyed. */
  transaction<T>(work: (client: Client) => Promise<T>): Promise<T>
  /** Callers that wait for a connection, connections open, and connections idle. */
  load(): { waiting: number; total: number; idle: number }
  /** For BullMQ, which brings its own statements. */
  readonly pool: pg.Pool
  readonly url: string
  close(): Promise<void>
}

export interface PostgresOptions {
  url: string
  /** Most connections. */
  max: number
  /** Shown in pg_stat_activity. */
  applicationName: string
  onError(error: Error): void
  /** Most callers that may wait for a connection before further ones are refused. */
  maxWaiting?: number
  /** Longest wait for a connection, ms. */
  maxWaitMs?: number
  /** Longest run of one statement, ms. 0 is without limit. */
  statementTimeoutMs?: number
  /** Longest wait for an answer, ms; then the connection is given up. A server that hangs sends no timeout. */
  queryTimeoutMs?: number
  searchPath?: string
}

/** The same for statements that take no time: whoever asks hears within `ms` that there is no answer. */
export const withAnswerIn = (database: Queryable, ms: number): Queryable => ({
  query: (sql, values) => {
    const statement = typeof sql === 'string' ? { text: sql, ...(values ? { values } : {}) } : sql
    return database.query({ ...statement, query_timeout: ms })
  },
})

const tooManyConnections = '53300'
/** What the fence of migration 0050 raises. */
const siteClosed = 'BT001'

/** SQLSTATE classes and Node codes that say "not now" rather than "not so". */
const away = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ENOTFOUND',
  'ETIMEDOUT',
  '57P01',
  '57P02',
  '57P03',
  '08006',
  '08001',
  '08003',
])

/** A pool whose waiters are bounded in number and time: an unbounded queue turns an outage into a cascade. */
export function createPostgres(options: PostgresOptions): Postgres {
  const maxWaiting = options.maxWaiting ?? 1_000
  const { statementTimeoutMs = 60_000 } = options
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.max,
    application_name: options.applicationName,
    connectionTimeoutMillis: options.maxWaitMs ?? 10_000,
    idleTimeoutMillis: 30_000,
    keepAlive: true,
    statement_timeout: statementTimeoutMs,
    // A transaction whose client has vanished would keep its locks, and those of its job, for hours. A copy of states
    // reads its source within one, so who has long statements may pause for as long.
    idle_in_transaction_session_timeout: statementTimeoutMs,
    ...(options.queryTimeoutMs ? { query_timeout: options.queryTimeoutMs } : {}),
    ...(options.searchPath ? { options: `-c search_path=${options.searchPath}` } : {}),
  })
  // An idle connection that Postgres ends would otherwise end this process.
  pool.on('error', options.onError)

  const commitMs = Math.min(options.queryTimeoutMs ?? longestCommitMs, longestCommitMs)
  const breaker = createConnectionBreaker(pool, options.max)
  const failed = (error: unknown): unknown => {
    if (codeOf(error) === tooManyConnections) breaker.trip()
    if (isUnanswered(error)) dropIdle(pool)
    return databaseError(error)
  }
  const admit = (): void => {
    if (pool.waitingCount >= maxWaiting) {
      throw DATABASE_OVERLOADED(
        { reason: `${pool.waitingCount} callers wait already` },
        { retryAfterMs: 1_000 },
      )
    }
  }

  return {
    pool,
    url: options.url,
    query: async (sql, values) => {
      admit()
      try {
        return await pool.query(sql, values as never)
      } catch (error) {
        throw failed(error)
      }
    },
    transaction: async (work) => {
      admit()
      const client = await pool.connect().catch((error: unknown) => {
        throw failed(error)
      })
      return runTransaction(client, commitMs, work).catch((error: unknown) => {
        if (isUnanswered(error)) dropIdle(pool)
        throw databaseError(error)
      })
    },
    load: () => ({ waiting: pool.waitingCount, total: pool.totalCount, idle: pool.idleCount }),
    close: () => {
      breaker.close()
      return pool.end()
    },
  }
}

/** Takes no time, so it soon tells of a connection that is dead. */
const begin: Statement = { text: 'BEGIN', query_timeout: 5_000 }

const longestCommitMs = 10_000

async function runTransaction<T>(
  client: Client,
  commitMs: number,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  // A checked-out client has no listener of the pool's: without one, losing it would end this process.
  const onError = (): void => undefined
  const commit: Statement = { text: 'COMMIT', query_timeout: commitMs }
  client.on('error', onError)
  let broken = false
  try {
    await client.query(begin)
    const result = await work(client)
    await client.query(commit)
    return result
  } catch (error) {
    // After a failed roll-back nobody knows what the connection holds, so nobody may have it again. One that does not
    // answer is not asked again: that would take as long once more.
    broken = isUnanswered(error)
    if (!broken) {
      await client.query('ROLLBACK').catch(() => {
        broken = true
      })
    }
    throw error
  } finally {
    client.off('error', onError)
    client.release(broken)
  }
}

/** Whether a failure says that Postgres cannot be reached, rather than that the statement was wrong. */
export function isAway(error: unknown): boolean {
  const code = codeOf(error)
  const isLost = messageOf(error).includes('Connection terminated') || isUnanswered(error)
  return (code !== undefined && away.has(code)) || isLost
}

/** Names what a failure means to the caller: away, overloaded, closed, or (unchanged) a fault of the statement. */
export function databaseError(error: unknown): unknown {
  const code = codeOf(error)
  const message = messageOf(error)
  if (code === tooManyConnections || message.includes('timeout exceeded when trying to connect')) {
    return DATABASE_OVERLOADED(
      { reason: message },
      { cause: error, retryAfterMs: 1_000 },
    ) satisfies BatonError
  }
  if (code === siteClosed) return SITE_CLOSED({}, { cause: error, retryAfterMs: 5_000 })
  if (isAway(error)) {
    return DATABASE_UNAVAILABLE({ reason: message }, { cause: error })
  }
  return error
}
