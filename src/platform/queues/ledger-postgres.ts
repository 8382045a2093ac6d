import type { Clock } from '../../core/clock.ts'
import type { Postgres } from '../postgres/postgres.ts'
import type { Ledger } from './ledger.ts'
import { createControl } from './ledger-control.ts'
import { insertJobs } from './ledger-insert.ts'
import { createRuns } from './ledger-runs.ts'
import { createViews } from './ledger-views.ts'

export interface LedgerOptions {
  postgres: Postgres
  clock: Clock
}

/** The ledger of docs/protocols/jobs.md. One a process: it knows which runs are this process's own. */
export function createLedger({ postgres, clock }: LedgerOptions): Ledger {
  return {
    insert: (rows, database) => insertJobs(postgres, rows, database),
    ...createRuns(postgres),
    ...createControl(postgres),
    ...createViews(postgres, clock),
  }
}
