import type { Clock } from '../../core/clock.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { BodySource, BodyStore, StagedBody } from './body-store.ts'
import { createDeadline, type Deadline } from './deadline.ts'
import { BODY_TIMEOUT, BODY_UNAVAILABLE } from './errors.ts'

export interface GuardedStoreOptions {
  store: BodyStore
  postgres: Postgres
  clock: Clock
  /** Longest wait for one answer of the store, ms. */
  timeoutMs: number
}

/** Flushing a large file is one answer that may honestly take longer than the others. */
const sealFactor = 4

/** A store whose every answer has a deadline, and which is asked only once it is known to be the right place. */
export function createGuardedStore({ store, postgres, clock, timeoutMs }: GuardedStoreOptions): BodyStore {
  const deadline = createDeadline(store.name, timeoutMs, clock)
  const sealing = createDeadline(store.name, timeoutMs * sealFactor, clock)
  const { within } = deadline
  let recognized: Promise<void> | undefined

  const ready = (): Promise<void> => {
    recognized ??= within(recognize(store, postgres)).catch((error: unknown) => {
      recognized = undefined
      throw error
    })
    return recognized
  }

  const stage = store.stage?.bind(store)
  const take = store.take?.bind(store)
  return {
    name: store.name,
    draining: store.draining ?? false,
    identity: () => within(store.identity()),
    ...(stage && {
      stage: async () => {
        await ready()
        return guardStaged(await within(stage(), (late) => void late.discard()), { ...deadline, sealing })
      },
    }),
    put: async (id, source, signal) => {
      await ready()
      await putWhileItMoves({ store, clock, timeoutMs: timeoutMs * sealFactor }, id, source, signal)
    },
    open: async (id, slice) => {
      await ready()
      return within(store.open(id, slice), (late) => void late.stream.destroy())
    },
    ...(take && { take: (id: string, size: number) => ready().then(() => within(take(id, size))) }),
    stat: (id) => ready().then(() => within(store.stat(id))),
    remove: (id) => ready().then(() => within(store.remove(id))),
    list: (after, limit) => ready().then(() => within(store.list(after, limit))),
    // Reads a whole body: only its caller, a repair, can say how long that may take.
    quarantine: (id) => ready().then(() => store.quarantine(id)),
    sweepStaged: (ageMs) => ready().then(() => within(store.sweepStaged(ageMs))),
    close: () => store.close(),
  }
}

/** A place that is known already is asked with no connection in hand: that would wait for a store that is away. */
async function recognize(store: BodyStore, postgres: Postgres): Promise<void> {
  const { rows } = await postgres.query<{ identity: string }>(
    'SELECT identity FROM body_stores WHERE name = $1',
    [store.name],
  )
  const [known] = rows
  if (known ? (await store.identity()) === known.identity : await makeKnown(store, postgres)) return
  throw BODY_UNAVAILABLE({
    store: store.name,
    reason: 'it is not the place that it was; is the disk mounted? If it is new: baton bodies adopt',
  })
}

/**
 * The first process to see a store writes down its identity; from then on another place under its name is refused.
 * One process at a time, since two that both find a place empty would each give it a word of their own.
 */
async function makeKnown(store: BodyStore, postgres: Postgres): Promise<boolean> {
  return postgres.transaction(async (client) => {
    await client.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [`body store ${store.name}`])
    const identity = await store.identity()
    const { rows } = await client.query<{ same: boolean }>(
      `INSERT INTO body_stores AS known (name, identity) VALUES ($1, $2)
       ON CONFLICT (name) DO UPDATE SET name = known.name RETURNING known.identity = $2 AS same`,
      [store.name, identity],
    )
    return rows[0]?.same ?? false
  })
}

function guardStaged(staged: StagedBody, { within, sealing }: Deadline & { sealing: Deadline }): StagedBody {
  return {
    write: (chunk) => within(staged.write(chunk)),
    seal: () => sealing.within(staged.seal()),
    commit: (id) => within(staged.commit(id)),
    discard: () => within(staged.discard()).catch(() => undefined),
  }
}

interface Moving {
  store: BodyStore
  clock: Clock
  timeoutMs: number
}

/** A put may take long, as long as it moves: the deadline starts anew with each piece that the store takes. */
async function putWhileItMoves(
  { store, clock, timeoutMs }: Moving,
  id: string,
  source: BodySource,
  signal: AbortSignal | undefined,
): Promise<void> {
  const ended = new AbortController()
  let pieces = 0
  const watch = async (): Promise<void> => {
    for (let seen = -1; seen !== pieces; ) {
      seen = pieces
      await clock.sleep(timeoutMs, ended.signal)
      if (ended.signal.aborted) return
    }
    throw BODY_TIMEOUT({ store: store.name, timeoutMs })
  }
  const moving: BodySource = {
    size: source.size,
    open: async function* () {
      for await (const chunk of source.open()) {
        pieces++
        yield chunk
      }
    },
  }
  const either = signal ? AbortSignal.any([signal, ended.signal]) : ended.signal
  try {
    await Promise.race([store.put(id, moving, either), watch()])
  } finally {
    ended.abort(new Error('the put is over'))
  }
}
