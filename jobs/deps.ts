import type { Clock } from '../src/core/clock.ts'
import type { Bodies } from '../src/domain/bodies/bodies.ts'
import type { StateAdministration } from '../src/domain/state/administration.ts'
import type { Log } from '../src/platform/log.ts'
import type { Postgres } from '../src/platform/postgres/postgres.ts'
import type { EnqueueIn } from '../src/platform/queues/enqueue-in.ts'

/** What every job of the project is given as its second argument. A further thing is made in src/cli/compose/deps.ts. */
export interface Deps {
  postgres: Postgres
  bodies: Bodies
  states: StateAdministration
  clock: Clock
  log: Log
  enqueue: Enqueue
  /** Within a transaction of the handler's own: after its roll-back the job never existed. */
  enqueueIn: EnqueueIn
}

/**
 * Enqueues another job by name; resolves with its id when it is accepted. To do so in the handler's own transaction,
 * use `enqueueIn`.
 *
 * @throws JOB_UNKNOWN, INPUT_INVALID, INTAKE_OVERLOADED
 */
export type Enqueue = (
  name: string,
  payload: unknown,
  options?: { delayMs?: number; runAt?: number; priority?: number; dedupeKey?: string },
) => Promise<string>
