import type { Readable } from 'node:stream'
import type { Queryable } from '../postgres/postgres.ts'

/**
 * A type of objects that sites copy from each other. docs/protocols/sync.md has the words. One implementation a type,
 * in the room whose rows they are; `test/contracts/replicated.ts` is run against each.
 */
export interface ReplicatedType {
  /** `states`, `device`, `push`, `job` or `body`. */
  readonly type: string
  /**
   * The objects of `ids` that are there, as `database` sees them. Content is canonical JSON: the same object gives the
   * same text on every site and version of Postgres. It has no bytes of states or bodies, only their sha256, and nothing
   * that differs between sites (leases, runners, whether a queue has it).
   */
  read(ids: readonly string[], database: Queryable): Promise<Map<string, Image>>
  /** For ids that `read` does not give: retention removed it (`forget`), or somebody deleted it. */
  absentKind: 'delete' | 'forget'
  /** Ids in their order (C collation) after `after`, at most `limit`: for seeding and full verification. */
  scan(after: string | undefined, limit: number, database: Queryable): Promise<string[]>
  /** Sha256 of the parts that this site has of an object already, so that only the rest is sent. */
  holdings?(ids: readonly string[], database: Queryable): Promise<Map<string, string[]>>
  /** The parts of an object whose sha256 is not in `held`. Small enough for one request (32 MiB each at most). */
  parts?(id: string, held: ReadonlySet<string>, database: Queryable): Promise<Part[]>
  /** Bytes too large for a request: sent before the object, on their own. Undefined: not there any more. */
  open?(id: string): Promise<{ size: number; bytes: Readable } | undefined>
  /** Keeps such bytes; verified against the id. Again is no harm. */
  receive?(id: string, size: number, bytes: Readable): Promise<void>
  /** Whether such bytes are here already, whole. */
  has?(ids: readonly string[]): Promise<Set<string>>
  /**
   * Writes the objects as they were sent, in a transaction that is applying; overwrites what is there. Throws when one
   * cannot be written (the caller gives one at a time, in a savepoint). Parts that were not sent are here already.
   */
  apply(arrival: Arrival, client: Queryable): Promise<void>
  /** Removes an object; again is no harm. */
  remove(id: string, client: Queryable): Promise<void>
}

export interface Image {
  /** Canonical JSON. */
  content: string
  /** Whose it is, for the fuse: a user, else a device; null when nobody's. */
  account: string | null
}

export interface Part {
  sha256: string
  bytes: Buffer
}

export interface Arrival {
  id: string
  content: string
  parts: Part[]
}
