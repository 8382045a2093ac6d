import { type Batcher, createBatcher } from '../../core/batcher.ts'
import type { Clock } from '../../core/clock.ts'
import type { Postgres } from '../postgres/postgres.ts'
import type { Entry, QueueBackend } from './backend.ts'
import type { Accepted, NewJob } from './ledger.ts'

/** Hands to the queue what was accepted. */
export interface Adder {
  /** Whether it is worth trying: while the queue is away rows are left to the reconciler from the beginning. */
  reachable(): boolean
  /** Nobody waits for this; what fails is left to the reconciler. Duplicates have their entry already. */
  addRows(rows: NewJob[], accepted: Accepted[]): void
  /** @throws QUEUE_UNAVAILABLE */
  addVolatile(entries: Addressed[]): Promise<void>
  /** Takes out what was added, as far as it does not run yet. */
  takeBack(entries: Addressed[]): Promise<void>
  idle(): Promise<void>
}

export interface Addressed {
  queue: string
  entry: Entry
}

export interface AdderOptions {
  postgres: Postgres
  backend: QueueBackend
  clock: Clock
  onError(error: unknown): void
}

/** Entries in one command to the engine. */
const maxBulk = 500
/** Entries that may wait for a slow engine; further ones are left to the reconciler, whose list is the table itself. */
const maxBacklog = 20_000
/** After a failure one attempt in this time finds out whether the queue is back, ms. */
const probeEveryMs = 500

const markUnqueued =
  'UPDATE jobs SET queued = false WHERE id = ANY($1::uuid[]) AND outcome IS NULL AND queued'

export function createAdder(options: AdderOptions): Adder {
  const { postgres, backend, clock, onError } = options
  const queues = new Map<string, Batcher<Entry, void>>()
  let failedAt: number | undefined

  const add = async (queue: string, entries: Entry[]): Promise<void> => {
    try {
      await backend.add(queue, entries)
      failedAt = undefined
    } catch (error) {
      failedAt = clock.monotonicMs()
      throw error
    }
  }
  const batcherOf = (queue: string): Batcher<Entry, void> => {
    const known = queues.get(queue)
    if (known) return known
    const made = createBatcher<Entry, void>({
      maxItems: maxBulk,
      concurrency: 2,
      run: async (entries) => {
        await add(queue, entries)
        return []
      },
    })
    queues.set(queue, made)
    return made
  }

  const left = createLeaver(postgres, onError)

  return {
    reachable: () => {
      if (failedAt === undefined) return true
      if (clock.monotonicMs() - failedAt < probeEveryMs) return false
      // This one is the probe; the others wait for its result.
      failedAt = clock.monotonicMs()
      return true
    },
    addRows: (rows, accepted) => {
      for (const [index, row] of rows.entries()) {
        const answer = accepted[index]
        if (!answer || answer.duplicate) continue
        const batcher = batcherOf(row.queue)
        const entry = { id: row.id, name: row.name, delayMs: answer.delayMs, priority: row.priority }
        if (batcher.pending >= maxBacklog) left.leave(row.id, new Error(`the queue ${row.queue} is slow`))
        else batcher.add(entry).catch((error: unknown) => left.leave(row.id, error))
      }
    },
    addVolatile: async (entries) => {
      await Promise.all(entries.map(({ queue, entry }) => batcherOf(queue).add(entry)))
    },
    takeBack: async (entries) => {
      await Promise.allSettled(entries.map(({ queue, entry }) => backend.remove(queue, entry.id)))
    },
    idle: async () => {
      for (const batcher of queues.values()) await batcher.idle()
      await left.idle()
    },
  }
}

interface Leaver {
  leave(id: string, error: unknown): void
  idle(): Promise<void>
}

/** Tells the reconciler of rows without an entry. Failures come in bulks, so one statement serves all of a turn. */
function createLeaver(postgres: Postgres, onError: (error: unknown) => void): Leaver {
  let leaving = 0
  const batcher = createBatcher<string, void>({
    maxItems: 5_000,
    run: async (ids) => {
      await postgres.query(markUnqueued, [ids.toSorted()])
      return []
    },
  })
  return {
    leave: (id, error) => {
      leaving++
      // Once for a bulk: each of its rows has the same trouble.
      if (leaving === 1) onError(error)
      batcher
        .add(id)
        .catch(onError)
        .finally(() => {
          leaving--
        })
    },
    idle: () => batcher.idle(),
  }
}
