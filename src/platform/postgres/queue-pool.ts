import pg from 'pg'
import { codeOf, messageOf } from '../../core/errors.ts'
import { dropIdle, isUnanswered, watchListener } from './dead-connections.ts'
import type { Row } from './postgres.ts'
import { isAway } from './postgres.ts'

/** The connections that BullMQ's Postgres engine works over, with its failures named so that it waits and retries. */
export interface QueuePool {
  /** What BullMQ takes for a `pg.Pool`. */
  readonly forBullmq: pg.Pool
  query<R extends Row>(sql: string, values: unknown[]): Promise<{ rows: R[] }>
  close(): Promise<void>
}

export interface QueuePoolOptions {
  url: string
  /** Most connections. A worker keeps one to itself, to listen on. */
  max: number
  onError(error: Error): void
}

/** Longest run of a statement, and longest wait for its answer, ms: nothing that is asked here takes a second. */
const statementMs = 5_000
const answerMs = 6_000
/** How often a statement that lost a deadlock is sent again; it left nothing behind. */
const maxAttempts = 5

export function createQueuePool(options: QueuePoolOptions): QueuePool {
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.max,
    application_name: 'baton queues',
    connectionTimeoutMillis: 5_000,
    idleTimeoutMillis: 30_000,
    statement_timeout: statementMs,
    query_timeout: answerMs,
    // Without it a connection that died silently would be listened on for an hour.
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    options: '-c search_path=bullmq',
  })
  pool.on('error', options.onError)

  const connect = pool.connect.bind(pool) as (callback?: unknown) => Promise<pg.PoolClient>
  const send = pool.query.bind(pool) as (sql: unknown, values: unknown) => Promise<pg.QueryResult>
  const query = async (sql: unknown, values: unknown): Promise<pg.QueryResult> => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await send(sql, values)
      } catch (error) {
        if (isUnanswered(error)) dropIdle({ idleCount: pool.idleCount, connect })
        if (codeOf(error) !== '40P01' || attempt === maxAttempts) throw asAway(error)
      }
    }
  }
  const patched = pool as unknown as Record<string, unknown>
  patched['query'] = query
  // BullMQ adds a listener with each of its connections and never takes it away; ours hears the same.
  const on = pool.on.bind(pool) as (event: string, listener: unknown) => pg.Pool
  patched['on'] = (event: string, listener: unknown) => (event === 'error' ? pool : on(event, listener))
  // With a callback it is the pool's own `query` that asks, without one BullMQ, for a connection to listen on.
  patched['connect'] = (callback?: unknown) =>
    callback === undefined ? connect().then(watched, rejectAsAway) : connect(callback)

  let closing: Promise<void> | undefined
  const close = async (): Promise<void> => {
    // As they are now: of one that is given back later the pool knows nothing any more, and still waits for its end,
    // which a server that hangs never confirms.
    const clients = clientsOf(pool)
    const ended = pool.end()
    // Ending waits for whoever has a connection checked out, and a worker that was cut off never gives it back.
    const timer = setTimeout(() => {
      for (const client of clients) client.connection.stream.destroy()
    }, 1_000)
    await ended.finally(() => clearTimeout(timer))
  }
  return {
    forBullmq: pool,
    query: (sql, values) => query(sql, values) as never,
    close: () => (closing ??= close()),
  }
}

/** Also those that are still connecting, of which the pool tells nobody. */
const clientsOf = (pool: pg.Pool): pg.Client[] =>
  (pool as unknown as { _clients?: pg.Client[] })._clients ?? []

function watched(client: pg.PoolClient): pg.PoolClient {
  const end = watchListener(client)
  const release = client.release.bind(client)
  client.release = (error) => {
    end()
    release(error)
  }
  client.once('end', end)
  return client
}

const rejectAsAway = (error: unknown): never => {
  throw asAway(error)
}

/** BullMQ waits and retries only when it reads ECONNREFUSED; on anything else it tries again without a pause. */
function asAway(error: unknown): unknown {
  if (!isAway(error)) return error
  return Object.assign(new Error(`ECONNREFUSED: ${messageOf(error)}`, { cause: error }), {
    code: 'ECONNREFUSED',
  })
}
