/**
 * What Baton needs of a queue engine. An entry carries the id of a row and nothing else that matters (only
 * work that may be lost carries its payload). Two implementations stand in backends/: BullMQ on Redis and
 * BullMQ on Postgres; one suite (test/contracts/queue-backend.ts) is run against both.
 */
export interface QueueBackend {
  readonly engine: 'redis' | 'postgres'
  /**
   * Adds entries. An id that the queue already holds is left as it is, so adding again is harmless.
   * @throws QUEUE_UNAVAILABLE at once (never hangs) while the engine is away
   */
  add(queue: string, entries: Entry[]): Promise<void>
  /**
   * For rows that are due and held by nobody: adds what is missing, and puts in line what the queue holds where it
   * would not be found for long: put off by a clock that was wrong or until an instant that does not count any more,
   * locked by such a clock, or in no list at all since the engine threw its list away.
   * @throws QUEUE_UNAVAILABLE
   */
  mend(queue: string, entries: Entry[]): Promise<void>
  /** A consumer of one queue. It fetches nothing before `start`. */
  consume(options: ConsumeOptions): Consumer
  /** Takes out an entry that is not active. False when it was active or not there. */
  remove(queue: string, id: string): Promise<boolean>
  /**
   * Moves the active entries that `runner` held back to wait, at once, without waiting for their locks.
   * Only for a runner that is known to be dead.
   * @returns their ids
   */
  handBack(queue: string, runner: string): Promise<string[]>
  /** Entries by BullMQ's state. */
  counts(queue: string): Promise<QueueCounts>
  /** An entry of work that has no row, by id. */
  find(queue: string, id: string): Promise<EntryView | undefined>
  /**
   * Which incarnation of the engine's memory this is: changes when a queue was flushed, restored, or failed over.
   * `mark` plants the key, so that a later `epoch` can tell that it is gone.
   */
  epoch(queue: string): Promise<string | undefined>
  mark(queue: string): Promise<string>
  /** Answers within `limitMs`, or throws QUEUE_UNAVAILABLE. */
  ping(limitMs: number): Promise<void>
  close(): Promise<void>
}

export interface Entry {
  id: string
  name: string
  /** ms from now; 0 for at once. */
  delayMs: number
  /** 0 is before all others, then 1, 2, … as BullMQ has it. */
  priority: number
  /** Only for work without a row: what it needs to run and to be retried. */
  volatile?: {
    payload: unknown
    attempts: number
    backoff: { baseMs: number; maxMs: number }
    context?: unknown
  }
}

export interface EntryView {
  id: string
  name: string
  state: 'waiting' | 'delayed' | 'active' | 'completed' | 'failed'
  payload: unknown
  attempts: number
  progress: unknown
  result: unknown
  error: string | undefined
  enqueuedAt: number
  startedAt: number | undefined
  finishedAt: number | undefined
}

export interface QueueCounts {
  waiting: number
  delayed: number
  active: number
  failed: number
}

export interface ConsumeOptions {
  queue: string
  /** Name of the consumer, kept with each entry that it holds: the key of `handBack`. */
  runner: string
  /** Deliveries at once that have not been freed. */
  concurrency: number
  /** Deliveries that may come besides, and wait here for their turn. None unless said. */
  ahead?(): number
  process(delivery: Delivery): Promise<Disposition>
  /** The lock of a delivery was lost: somebody else may have it now. */
  onLost(id: string): void
  onError(error: Error): void
}

/** One entry, handed to this process. */
export interface Delivery {
  id: string
  name: string
  queue: string
  /** Only for work without a row. */
  volatile?: { payload: unknown; attempt: number; attempts: number; context?: unknown; stalls: number }
  /** Shows the progress of work without a row. */
  showProgress(value: unknown): Promise<void>
  /**
   * The handler is over: its place may be taken while its end is still being written. Without it the place is free
   * when the delivery is settled. Repeats change nothing.
   */
  free?(): void
}

/** What becomes of the entry. The row, where there is one, has been written before. */
export type Disposition =
  | { kind: 'finished'; result?: unknown }
  /** Work without a row: the engine counts the attempt and applies the back-off. `final` ends the retries. */
  | { kind: 'failed'; error: Error; final: boolean }
  | { kind: 'delayed'; ms: number }
  /** Back to wait, at once: the hand-back of an interrupted run. */
  | { kind: 'handed-back' }

export interface Consumer {
  start(): Promise<void>
  /** Fetches nothing new; what is under way goes on. Returns at once, also when the engine is away. */
  quiet(): void
  /** Undoes quiet. */
  resume(): void
  /** Entries under way in this consumer. */
  active(): string[]
  /** Closes the connections; to be called when nothing is under way. Never takes longer than `limitMs`. */
  close(limitMs: number): Promise<void>
}
