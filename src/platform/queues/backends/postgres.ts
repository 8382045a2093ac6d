import { PostgresConnection, PostgresQueueBackend, Queue } from 'bullmq'
import type { Clock } from '../../../core/clock.ts'
import { createQueuePool, type QueuePool } from '../../postgres/queue-pool.ts'
import { type BullmqBackend, createBullmqBackend } from './bullmq.ts'
import {
  type Engine,
  type Held,
  longestPauseMs,
  type OpenedBackend,
  type Strayed,
  type WorkerBackendOptions,
} from './engine.ts'
import { createPostgresExchange } from './postgres-exchange.ts'

export interface PostgresBackendOptions {
  url: string
  clock: Clock
  /** Connection troubles, which heal by themselves. */
  onError(error: Error): void
  /** Most connections: each consumer keeps one, and 2 more are needed for statements. 4 unless said. */
  connections?: number
}

/** BullMQ on Postgres: for those who have no Redis. */
export function createPostgresBackend(options: PostgresBackendOptions): BullmqBackend {
  return createBullmqBackend(createPostgresEngine(options), options.clock)
}

const heldBy = `SELECT id, lock_token AS token FROM job
  WHERE queue = $1 AND state = 'active' AND processed_by = $2`

/**
 * What BullMQ's add_jobs_bulk does for entries without parent, delay and priority, less its temporary tables, which
 * swell the catalogue with each call, and the events that nobody reads.
 */
const addPlain = `WITH added AS (
    INSERT INTO job (queue, id, seq, name, state, opts, added_at_ms)
    SELECT $1, id, nextval('job_seq'), name, 'waiting', $4::jsonb, $5
    FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS r (id, name, nth) ORDER BY nth
    ON CONFLICT (queue, id) DO NOTHING RETURNING 1)
  SELECT pg_notify('bullmq_jobs', $1) FROM (SELECT FROM added LIMIT 1) AS some_added`

/**
 * By the clock of Postgres; those of the nodes are what may be wrong. A fast one makes locks that last too long, and
 * keeps all others from sweeping: the time of the last sweep, which BullMQ notes for all, lies in the future then.
 */
const strayed = `WITH now AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms)
  SELECT id, state::text AS state, lock_token AS token FROM job, now WHERE queue = $1 AND id = ANY($2::text[])
    AND (state IN ('completed', 'failed', 'waiting-children') OR state = 'delayed' AND process_at_ms > now.ms + $3
      OR state = 'active' AND abs(locked_until_ms - now.ms) > $3)`

function createPostgresEngine(options: PostgresBackendOptions): Engine {
  const pool = createQueuePool({
    url: options.url,
    max: options.connections ?? 4,
    onError: options.onError,
  })
  const views = new Map<string, Queue>()
  let root: Promise<PostgresQueueBackend> | undefined
  const ready = (): Promise<PostgresQueueBackend> => {
    root ??= openBackend(pool, '-', {}).catch((error: unknown) => {
      // BullMQ remembers a failed first connection for ever: the next caller makes a new one.
      root = undefined
      throw error
    })
    return root
  }

  return {
    kind: 'postgres',
    prefix: () => 'baton',
    queue: async (name) => (await ready()).forQueue(name),
    addPlain: async (queue, { ids, names, options: jobOptions, epochMs }) => {
      // Not before BullMQ has found its schema to be what it knows.
      await ready()
      await pool.query(addPlain, [queue, ids, names, jobOptions, epochMs])
    },
    view: async (name) => {
      const backend = await ready()
      const view = views.get(name) ?? viewOf(name, backend)
      views.set(name, view)
      return view
    },
    open: (queue, worker) => openConsumer(pool, queue, worker),
    assertRoom: async () => undefined,
    strayed: async (queue, ids) => {
      const { rows } = await pool.query<{ id: string; state: string; token: string | null }>(strayed, [
        queue,
        ids,
        longestPauseMs,
      ])
      const found: Strayed = { late: [], lost: [], locked: [] }
      for (const { id, state, token } of rows) {
        if (state === 'active') found.locked.push({ id, token: token ?? undefined })
        else found[state === 'delayed' ? 'late' : 'lost'].push(id)
      }
      return found
    },
    active: async (queue, runner) => {
      const { rows } = await pool.query<{ id: string; token: string | null }>(heldBy, [queue, runner])
      return rows.map(({ id, token }): Held => ({ id, token: token ?? undefined }))
    },
    // The rows of the ledger and those of the engine are in one database: neither forgets without the other.
    epoch: async () => 'postgres',
    mark: async () => 'postgres',
    ping: async () => void (await pool.query('SELECT 1', [])),
    close: () => pool.close(),
  }
}

/** The same error was told by the pool already. */
const ignore = (): void => undefined

async function openBackend(
  pool: QueuePool,
  queue: string,
  options: Partial<WorkerBackendOptions>,
): Promise<PostgresQueueBackend> {
  const connection = new PostgresConnection(pool.forBullmq as never)
  connection.on('error', ignore)
  await connection.waitUntilReady()
  const backend = new PostgresQueueBackend(connection, queue, { connection: {} as never, ...options })
  // An error that nobody hears ends the process.
  backend.on('error', ignore)
  return backend
}

function viewOf(name: string, root: PostgresQueueBackend): Queue {
  const queue = new Queue(name, { connection: {}, skipMetasUpdate: true }, () => root.forQueue(name) as never)
  queue.on('error', ignore)
  return queue
}

async function openConsumer(
  pool: QueuePool,
  queue: string,
  worker: WorkerBackendOptions,
): Promise<OpenedBackend> {
  const backend = await openBackend(pool, queue, worker)
  const options = { queue, runner: worker.name, lockMs: worker.lockDuration }
  const exchange = createPostgresExchange(pool, backend, options)
  return { backend, exchange, destroy: () => void backend.close().catch(() => undefined) }
}
