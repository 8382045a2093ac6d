import type { Fault } from '../../core/errors.ts'
import type { Queryable } from '../postgres/postgres.ts'

/** The rows of `jobs`, as docs/protocols/jobs.md has them. Every method is one numbered step of that page. */
export interface Ledger {
  /** Step 1. Many rows in one statement; a dedupe key that is taken answers with the row that has it. */
  insert(rows: NewJob[], database?: Queryable): Promise<Accepted[]>
  /** Step 2. One statement for all concurrent callers of this process. */
  start(id: string, run: Run): Promise<StartResult>
  /** Steps 4 and 5. False: the run was lost to another and nothing was written. Batched. */
  finish(id: string, token: string, ending: Ending): Promise<boolean>
  /** Step 4 inside the handler's transaction. False: not the holder any more, so the transaction must roll back. */
  finishWith(database: Queryable, id: string, token: string, ending: Ending): Promise<boolean>
  /** Step 3. Batched, not waited for by the disk. False: the run was lost. */
  saveProgress(id: string, token: string, progress: unknown): Promise<boolean>
  saveCheckpoint(id: string, token: string, checkpoint: unknown, database?: Queryable): Promise<boolean>
  /** Step 6, by the master for its dead child; a crash unless said. @returns ids of the rows that were released */
  releaseRunner(runner: string, cause?: ReleaseCause): Promise<string[]>
  /** Step 8. What it found: a row that was finished at once, one that is being asked, or none. */
  cancel(id: string): Promise<'cancelled' | 'requested' | 'finished' | 'missing'>
  /** Of the given ids, those whose cancel was asked for. */
  cancelRequested(ids: string[]): Promise<string[]>
  /** Step 9. */
  retry(id: string): Promise<'retried' | 'unfinished' | 'missing'>
  /** Step 9 for all failed rows that match, `limit` at a time. @returns how many */
  retryFailed(filter: FailedFilter, limit: number): Promise<number>
  get(id: string): Promise<JobView | undefined>
  /** Several at once, for progress streams. */
  getMany(ids: string[]): Promise<JobView[]>
  list(filter: JobFilter): Promise<JobPage>
  /** Counts by name and state for the overview; bounded work, so large counts are estimates and say so. */
  summary(): Promise<LedgerSummary>
  /** Deletes rows that finished long ago, in bounded bites. @returns how many */
  prune(retention: { finishedMs: number; failedMs: number }, limit: number): Promise<number>
}

/** Whether the runner took itself down, or was ended on purpose: only the first counts against its jobs. */
export type ReleaseCause = 'crash' | 'interruption'

export interface NewJob {
  id: string
  name: string
  queue: string
  payload: unknown
  /** The payload as JSON, when somebody has made the text already; it is stored as it stands. */
  payloadJson?: string
  priority: number
  maxAttempts: number
  /** ms from now by the database's clock. Or an absolute `runAt` (epoch ms). */
  delayMs: number
  runAt?: number
  dedupeKey?: string
  context?: JobOrigin
  /** False: leave it to the reconciler to hand it to the queue. */
  queued: boolean
}

/** What the request brought along, carried into the run. */
export interface JobOrigin {
  requestId?: string
  traceparent?: string
}

export interface Accepted {
  id: string
  /** True when a dedupe key was taken and `id` is the older job. */
  duplicate: boolean
  /** ms until it is due, by the database's clock; what the entry is given as its delay. */
  delayMs: number
  /** Of a duplicate: what the older job was doing. */
  state?: JobState
}

export interface Run {
  token: string
  runner: string
}

export type StartResult =
  | {
      kind: 'started'
      payload: unknown
      attempt: number
      maxAttempts: number
      interruptions: number
      /** How often it was there when its process died. */
      crashes: number
      checkpoint: unknown
      context: JobOrigin | undefined
    }
  | { kind: 'finished' | 'missing' }
  | { kind: 'early'; ms: number }
  | { kind: 'held' }
  /** The row was finished as poison just now. */
  | { kind: 'poison' }

export type Ending =
  | { kind: 'completed'; result: unknown }
  | { kind: 'failed'; error: JobError }
  | { kind: 'cancelled'; reason: string }
  | { kind: 'retry'; error: JobError; delayMs: number }
  | { kind: 'snooze'; delayMs: number }
  | { kind: 'interrupted' }

export interface JobError {
  code: string
  message: string
  stack?: string
  /** What of the payload did not fit, by JSON pointers. */
  faults?: Fault[]
}

export type JobState = 'waiting' | 'delayed' | 'active' | 'completed' | 'failed' | 'cancelled'

/** A job as the contract shows it. Instants are ISO 8601. */
export interface JobView {
  id: string
  name: string
  queue: string
  state: JobState
  payload: unknown
  attempts: number
  maxAttempts: number
  interruptions: number
  progress: unknown
  result?: unknown
  error?: JobError
  priority: number
  retried: number
  runner?: string
  enqueuedAt: string
  runAt: string
  startedAt?: string
  finishedAt?: string
}

export interface JobFilter {
  state?: JobState
  name?: string
  queue?: string
  cursor?: string
  limit: number
}

export interface FailedFilter {
  name?: string
  queue?: string
  /** Only what failed at this instant or before, ISO 8601: else a job that fails again would be retried for ever. */
  failedUntil?: string
}

export interface JobPage {
  jobs: JobView[]
  /** Give it back to get the next page; absent on the last. */
  cursor?: string
}

export interface LedgerSummary {
  states: Record<JobState, number>
  /** Oldest due job that waits, ms. The truth about lag. */
  oldestWaitingMs: number
  perMinute: { completed: number; failed: number; accepted: number }
  exact: boolean
}
