import type { IQueueBackend, Queue } from 'bullmq'
import type { Exchange, Exchanged } from './exchange.ts'

/** What the two BullMQ engines differ in, for what they have in common. */
export interface Engine {
  readonly kind: 'redis' | 'postgres'
  /** BullMQ's operations on a queue, over connections that fail at once while the engine is away. */
  queue(name: string): Promise<IQueueBackend>
  /**
   * Adds entries that have neither payload, delay nor priority, all in one command. BullMQ's own bulk costs the
   * client and the engine several times as much: docs/decisions/0004-direct-add.md.
   */
  addPlain(queue: string, entries: PlainEntries): Promise<void>
  /** Of these entries, which are due now, those that the engine would not deliver for long. */
  strayed(queue: string, ids: string[]): Promise<Strayed>
  /** To be asked before entries are added. Rejects when they would take the memory that fetching needs. */
  assertRoom(queue: string, entries: number): Promise<void>
  /** The same as BullMQ's own object, for looking in. */
  view(name: string): Promise<Queue>
  /** Connections of a consumer's own, which sit through an outage. Rejects while the engine cannot be reached. */
  open(queue: string, options: WorkerBackendOptions): Promise<OpenedBackend>
  /** Key prefix, which the Redis engine has and the other ignores. */
  prefix(queue: string): string
  active(queue: string, runner: string): Promise<Held[]>
  epoch(queue: string): Promise<string | undefined>
  mark(queue: string): Promise<string>
  ping(): Promise<void>
  close(): Promise<void>
}

export interface PlainEntries {
  ids: string[]
  names: string[]
  /** BullMQ's options of each, as JSON. */
  options: string
  epochMs: number
}

/** What BullMQ's backends read of a worker's options. */
export interface WorkerBackendOptions {
  name: string
  lockDuration: number
  stalledInterval: number
  maxStalledCount: number
  removeOnComplete: { count: number }
}

export interface OpenedBackend {
  backend: IQueueBackend
  /** Over the same connection. */
  exchange(exchange: Exchange): Promise<Exchanged>
  /** Cuts the connections, also when the engine does not answer any more. */
  destroy(): void
}

/** Entries that are due, and where they are instead of in line. */
export interface Strayed {
  /** Delayed for longer than Baton itself ever puts off what is due. */
  late: string[]
  /** Known by name, but in no list: nobody will ever deliver them. */
  lost: string[]
  /** Active by a lock that no clock of now can have made, or one that ran out and that no sweep has noticed. */
  locked: Held[]
}

/** The longest delay that an entry gets whose row is due, ms: while its row is held, its name unknown, or undecided. */
export const longestPauseMs = 10_000

/** An active entry and the lock that it is held by; without a lock it has expired. */
export interface Held {
  id: string
  token: string | undefined
}
