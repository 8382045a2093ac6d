import type { Clock } from '../../core/clock.ts'
import type { Client } from '../postgres/postgres.ts'
import { rowOf } from './accept.ts'
import type { Job } from './job.ts'
import type { Accepted, JobOrigin, Ledger } from './ledger.ts'
import { unqueuedChannel } from './ledger-sql.ts'
import { claimLarge } from './payload-claim.ts'
import type { PayloadStore } from './payload-store.ts'
import { assertFits, type Registry } from './registry.ts'

export interface EnqueueOptions {
  delayMs?: number
  /** Epoch ms. */
  runAt?: number
  priority?: number
  dedupeKey?: string
  context?: JobOrigin
}

/**
 * Enqueues within a transaction of the caller's: after its commit the job runs, within milliseconds; after its
 * roll-back the job never existed. Such a job has a row in any case, also when it is defined as `durable: false`.
 *
 * @throws JOB_UNKNOWN, INPUT_INVALID
 */
export type EnqueueIn = <Payload>(
  client: Client,
  job: Job<Payload, never>,
  payload: Payload,
  options?: EnqueueOptions,
) => Promise<Accepted>

export interface EnqueueInOptions {
  ledger: Ledger
  registry: Registry<never>
  clock: Clock
  /** Takes payloads that are too large for a row; without it they stay there. */
  payloads?: PayloadStore
}

export function createEnqueueIn({ ledger, registry, clock, payloads }: EnqueueInOptions): EnqueueIn {
  return async (client, job, payload, options = {}) => {
    assertFits(registry.validate(job.name, payload))
    const row = rowOf({ ...options, job: registry.get(job.name), payload }, clock.now())
    // Over connections of its own. When the transaction rolls back, a sweep removes what lies there for nobody.
    if (payloads) await claimLarge([row], payloads)
    const [accepted] = await ledger.insert([{ ...row, queued: false }], client)
    if (!accepted) throw new Error('the ledger gave no answer')
    if (!accepted.duplicate) await tellReconciler(client)
    return accepted
  }
}

/** Told at the commit; Postgres drops what a roll-back took along. */
export async function tellReconciler(database: Pick<Client, 'query'>): Promise<void> {
  await database.query(`SELECT pg_notify('${unqueuedChannel}', '')`)
}
