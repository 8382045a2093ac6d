import type { Static, TSchema } from 'typebox'
import type { BackoffOptions } from '../../core/backoff.ts'
import type { Log } from '../log.ts'
import type { Client } from '../postgres/postgres.ts'
import { assertDefinition } from './job-definition.ts'

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
  /** True once the process wants to stop: a long job should save and end soon. `iterate` does so by itself. */
  readonly draining: boolean
  /** Each line bears the job's id, name, attempt, and the id of the request that brought it. */
  readonly log: Log
  /** W3C trace context, for calls that the handler makes: of this run, or of the request that brought the job. */
  readonly traceparent: string | undefined
  /** What the run before saved; undefined in the first. */
  readonly checkpoint: Checkpoint | undefined
  /** Shows how far the job is: a number (percent, rows, …) or a small object. Cheap: written a few times a second. */
  progress(value: unknown): void
  /** Saves where to go on after an interruption. @throws JOB_LOST when somebody else has the job by now */
  save(checkpoint: Checkpoint): Promise<void>
  /**
   * Yields from `source`. Between two items it saves a checkpoint now and then, and on drain it saves the last
   * one and ends the run: the job goes back to the queue, without an attempt used, and goes on elsewhere.
   *
   * A plain source is read from its beginning again, and the items that the checkpoint covers are left out: it
   * must yield the same items in the same order. A function opens the source where the checkpoint says; nothing
   * is left out. docs/jobs.md says exactly what is guaranteed.
   */
  iterate<T>(source: Source<T, Checkpoint>, options?: IterateOptions<T, Checkpoint>): AsyncIterable<T>
  /** The handler's own writes and the checkpoint in one transaction: both or neither. */
  transact(checkpoint: Checkpoint, work: (client: Client) => Promise<void>): Promise<void>
  /**
   * The handler's own writes and the completion of the job in one transaction: they happen exactly once,
   * however often the job is delivered. The handler should end with what this returns.
   */
  once(work: (client: Client) => Promise<unknown>): Promise<Outcome>
}

export type Items<T> = AsyncIterable<T> | Iterable<T>
export type Source<T, Checkpoint> = Items<T> | ((from: Checkpoint | undefined) => Items<T>)

export interface IterateOptions<T, Checkpoint> {
  /** The checkpoint after the items so far. Called when one is about to be saved. */
  save?: (last: T) => Checkpoint
  /** Longest time between two saved checkpoints, ms; 1,000 unless said. */
  everyMs?: number
}

export interface Schedule<Payload> {
  cron: string
  timeZone?: string
  payload: Payload
}

export interface JobOptions<
  Payload extends TSchema,
  Deps,
  Checkpoint extends TSchema | undefined = undefined,
> {
  /** Unique in the project; the word that producers use. A letter, then letters, digits, `-`, `_` and `.`. */
  name: string
  /** 'default' unless said. */
  queue?: string
  payload: Payload
  /** Types `ctx.checkpoint`, and is checked when a run goes on from one. Without it the checkpoint is not typed. */
  checkpoint?: Checkpoint
  /** Runs before a failure is final; 3 unless said. */
  attempts?: number
  /** Pauses before retries; from 1 s, doubled up to 10 minutes, unless said. */
  backoff?: BackoffOptions
  /** Longest run, ms; 10 minutes unless said. */
  timeoutMs?: number
  /** While a job with the same key is unfinished, another one is not taken in: its id is answered instead. */
  dedupe?: (payload: Static<Payload>) => string
  /** False: without a row in the ledger, for work that may be lost. */
  durable?: boolean
  /** Runs by the clock: a cron expression of five fields, read in the time zone (UTC unless said). */
  schedule?: Schedule<Static<Payload>>
  run(
    payload: Static<Payload>,
    deps: Deps,
    context: JobContext<CheckpointOf<Checkpoint>>,
  ): Promise<Outcome | undefined | void>
}

/** Unknown would force a cast on every use, so a job without a schema for its checkpoint reads it unchecked. */
// oxlint-disable-next-line typescript/no-explicit-any
export type CheckpointOf<Checkpoint> = Checkpoint extends TSchema ? Static<Checkpoint> : any

/** A job as the engine holds it, with every default filled in. */
export interface Job<Payload = unknown, Deps = unknown> {
  readonly name: string
  readonly queue: string
  readonly payload: TSchema
  readonly checkpoint: TSchema | undefined
  readonly attempts: number
  readonly backoff: BackoffOptions
  readonly timeoutMs: number
  readonly durable: boolean
  readonly schedule: Schedule<unknown> | undefined
  // Written as methods: so jobs of all payloads and dependencies can stand in one list.
  dedupe?(payload: Payload): string
  run(payload: Payload, deps: Deps, context: JobContext<unknown>): Promise<Outcome | undefined | void>
}

/** @throws JOB_DEFINITION_INVALID with everything that is wrong */
export function defineJob<
  Payload extends TSchema,
  Deps = unknown,
  Checkpoint extends TSchema | undefined = undefined,
>(options: JobOptions<Payload, Deps, Checkpoint>): Job<Static<Payload>, Deps> {
  const { dedupe } = options
  const job: Job<Static<Payload>, Deps> = {
    name: options.name,
    queue: options.queue ?? 'default',
    payload: options.payload,
    checkpoint: options.checkpoint,
    attempts: options.attempts ?? 3,
    backoff: options.backoff ?? { baseMs: 1_000, maxMs: 600_000 },
    timeoutMs: options.timeoutMs ?? 600_000,
    durable: options.durable ?? true,
    schedule: options.schedule,
    run: (payload, deps, context) =>
      options.run(payload, deps, context as JobContext<CheckpointOf<Checkpoint>>),
    ...(dedupe ? { dedupe } : {}),
  }
  assertDefinition(job)
  return job
}
