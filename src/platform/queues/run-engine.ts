import type { Clock } from '../../core/clock.ts'
import type { Log } from '../log.ts'
import type { Postgres } from '../postgres/postgres.ts'
import type { Tracing } from '../tracing.ts'
import type { ActiveRun } from './active-run.ts'
import type { JobMetrics } from './job-metrics.ts'
import type { Ledger } from './ledger.ts'
import type { PayloadStore } from './payload-store.ts'
import type { Places } from './places.ts'
import type { Registry } from './registry.ts'
import type { Suspects } from './suspects.ts'

/** What all runs of a process share. */
export interface Engine {
  registry: Pick<Registry, 'find' | 'validate' | 'validateCheckpoint'>
  ledger: Ledger
  database: Pick<Postgres, 'transaction'>
  deps: unknown
  log: Log
  clock: Clock
  metrics: JobMetrics
  runner: string
  suspects: Suspects
  /** Of a queue. */
  places(queue: string): Places
  payloads?: PayloadStore
  tracing?: Tracing | undefined
  /** Aborts at drain: a run that has not begun goes back. */
  draining: AbortSignal
  /** Aborts when the time for writing is over. */
  givingUp: AbortSignal
  /** How long a name may be unknown before its jobs fail, ms. */
  unknownMs: number
  /** When each unknown name was first met. Monotonic. */
  unknownSince: Map<string, number>
  /** Postgres does not let this process start rows. */
  onUnstarted(): void
  /** A handler has ended after it was abandoned. */
  onLateEnd(run: ActiveRun): void
}
