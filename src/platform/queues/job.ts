import type { Static, TSchema } from 'typebox'
import type { BackoffOptions } from '../../core/backoff.ts'
import type { Log } from '../log.ts'
import type { Client } from '../postgres/postgres.ts'

/** What a handler may say of its job. To throw means to retry; an interruption is neither. */
export type Outcome =
  | { kind: 'done'; result?: unknown }
  /** Come again after `ms`; uses no attempt. */
  | { kind: 'snooze'; ms: number }
  /** Never come again; not a failure. */
  | { kind: 'cancel'; reason: string }

export const done = (result?: unknown): Outcome =>
  result === undefined ? { kind: 'done' } : { kind: 'done', result }
export const snooze = (ms: number): Outcome => ({ kind: 'snooze', ms })
export const cancel = (reason: string): Outcome => ({ kind: 'cancel', reason })

/** What a handler is given besides its payload and its dependencies. */
export interface JobContext<Checkpoint = unknown> {
  readonly id: string
  readonly name: string
  /** 1 in the first run; interruptions do not count. */
  readonly attempt: number
  /** Aborts at the deadline of a stop, at the job's timeout, on cancel, and when the run was lost to another. */
  readonly signal: AbortSignal
  readonly log: Log
  /** What the run before saved; undefined in the first. */
  readonly checkpoint: Checkpoint | undefined
  /** Shows how far the job is: a number (percent, rows, …) or a small object. Cheap: written a few times a second. */
  progress(value: unknown): void
  /** Saves where to go on after an interruption. */
  save(checkpoint: Checkpoint): Promise<void>
  /**
   * Yields from `source`. Between two items it saves a checkpoint now and then, and on drain it saves the last
   * one and ends the run: the job goes back to the queue, without an attempt used, and goes on elsewhere.
   */
  iterate<T>(
    source: AsyncIterable<T> | Iterable<T>,
    options?: IterateOptions<T, Checkpoint>,
  ): AsyncIterable<T>
  /** The handler's own writes and the checkpoint in one transaction: both or neither. */
  transact(checkpoint: Checkpoint, work: (client: Client) => Promise<void>): Promise<void>
  /**
   * The handler's own writes and the completion of the job in one transaction: they happen exactly once,
   * however often the job is delivered. The handler should end with what this returns.
   */
  once(work: (client: Client) => Promise<unknown>): Promise<Outcome>
}

export interface IterateOptions<T, Checkpoint> {
  /** The checkpoint after the items so far. Called when one is about to be saved. */
  save?: (last: T) => Checkpoint
  /** Longest time between two saved checkpoints, ms; 1,000 unless said. */
  everyMs?: number
}

export interface JobOptions<Payload extends TSchema, Deps> {
  /** Unique in the project; the word that producers use. */
  name: string
  /** 'default' unless said. */
  queue?: string
  payload: Payload
  /** Runs before a failure is final; 3 unless said. */
  attempts?: number
  backoff?: BackoffOptions
  /** Longest run, ms; 10 minutes unless said. */
  timeoutMs?: number
  /** While a job with the same key is unfinished, another one is not taken in: its id is answered instead. */
  dedupe?: (payload: Static<Payload>) => string
  /** False: without a row in the ledger, for work that may be lost. */
  durable?: boolean
  /** Runs by the clock: a cron expression of five fields, read in the time zone (UTC unless said). */
  schedule?: { cron: string; timeZone?: string; payload: Static<Payload> }
  run(payload: Static<Payload>, deps: Deps, context: JobContext<never>): Promise<Outcome | undefined | void>
}
