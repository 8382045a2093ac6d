import type { Readable } from 'node:stream'

/**
 * One place that keeps bodies under their sha256. Implementations stand in stores/; one suite
 * (test/contracts/body-store.ts) is run against all of them. A store promises:
 *
 * - Under an id there is a whole body or nothing, whatever dies when.
 * - BODY_NOT_FOUND is said only by a store that works and has looked. A store that is away, full, read-only
 *   or not mounted says BODY_UNAVAILABLE; one that does not answer in time says BODY_TIMEOUT.
 * - It does not promise that the bytes are right. Whoever reads verifies them (see bodies.ts).
 *
 * Every method throws BODY_ID_INVALID for an id that is not a sha256, before it touches anything.
 */
export interface BodyStore {
  /** Stands in rows, logs and metrics: stable for one place, and free of secrets. */
  readonly name: string
  /** Is read from, but takes no new bodies, and gives its bodies to the others. */
  readonly draining?: boolean
  /**
   * A random word that the place itself keeps, made when it is first used; as it stands there now. Another word
   * than the last time means another place: a disk that is not mounted would otherwise swear that it has nothing.
   */
  identity(): Promise<string>
  /**
   * Begins a body whose id is not known yet. Nobody sees it before `commit`. Only where a place can take bytes
   * first and name them afterwards; for the others the body is spooled, and then `put`.
   */
  stage?(): Promise<StagedBody>
  /** Writes a body whose id is known, over whatever is there. Durable when it resolves. */
  put(id: string, source: BodySource, signal?: AbortSignal): Promise<void>
  /**
   * Opens a body; `start` and `end` (the byte after the last) narrow what is streamed.
   *
   * @throws BODY_NOT_FOUND, BODY_UNAVAILABLE, BODY_TIMEOUT; the stream fails with the last two
   */
  open(id: string, slice?: Slice): Promise<OpenBody>
  /**
   * Reads a whole body that should have so many bytes, a MiB at most, at once. Only where that costs less than a
   * stream. A copy of another length gives fewer bytes, or more.
   *
   * @throws BODY_NOT_FOUND, BODY_UNAVAILABLE, BODY_TIMEOUT
   */
  take?(id: string, size: number): Promise<Uint8Array>
  /** @throws BODY_NOT_FOUND, BODY_UNAVAILABLE, BODY_TIMEOUT */
  stat(id: string): Promise<StoredBody>
  /** @returns false when there was nothing to remove */
  remove(id: string): Promise<boolean>
  /** The bodies after the given id, in the order of their ids, at most `limit`. None: the end. */
  list(after: string | undefined, limit: number): Promise<StoredBody[]>
  /**
   * Takes a bad copy out of the way and keeps it for people to look at. It is read once more first: a copy
   * that is sound after all (it was rewritten meanwhile, or the wire was bad) stays where it is.
   *
   * @returns whether a bad copy was taken away
   */
  quarantine(id: string): Promise<boolean>
  /** Removes what crashed writers left behind longer than `ageMs` ago. @returns how many */
  sweepStaged(ageMs: number): Promise<number>
  close(): Promise<void>
}

/** A body under way. Ends by `commit` or by `discard`; both may be called after a failed `write`. */
export interface StagedBody {
  /** Takes the bytes; resolves when it wants more. The chunk must not be changed afterwards. */
  write(chunk: Uint8Array): Promise<void>
  /** Makes what was written durable, still unseen, so that `commit` is quick. */
  seal(): Promise<void>
  /** Makes it visible under its id, over whatever is there, and durable. The caller vouches for the id. */
  commit(id: string): Promise<void>
  /** Leaves nothing behind. Never throws. */
  discard(): Promise<void>
}

/** A whole body that can be read more than once. */
export interface BodySource {
  size: number
  open(): AsyncIterable<Uint8Array>
}

export interface OpenBody {
  /** Of the whole body, as the store has it. */
  size: number
  /** Must be read to its end or destroyed, else a handle stays open. */
  stream: Readable
}

export interface StoredBody {
  id: string
  size: number
  /** Epoch ms by the store's own clock. */
  modifiedAt: number
}

/** From the byte `start` (0 unless said) up to, not including, `end` (the size unless said). */
export interface Slice {
  start?: number
  end?: number
}
