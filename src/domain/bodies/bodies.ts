import type { Readable } from 'node:stream'

/** What the rest of Baton sees of bodies. Whatever it hands out has been verified, byte for byte, before. */
export interface Bodies {
  /**
   * Reads the source once and writes it to two stores at the pace of the slower one, with constant memory.
   * When it resolves the copies are durable; when it throws nobody can see the body (unless it was there before).
   *
   * @throws BODY_TOO_LARGE, BODY_INCOMPLETE (the source failed), BODY_UNAVAILABLE, BODY_TIMEOUT, BODY_OVERLOADED,
   *   DATABASE_UNAVAILABLE, DATABASE_OVERLOADED
   */
  put(source: AsyncIterable<Uint8Array>, options?: PutOptions): Promise<PutResult>
  /**
   * Resolves when the first bytes are verified, so that a refusal can still become a status. Later chunks are
   * verified before they are sent; a bad one is read from the other copy, and if there is none the stream is
   * destroyed with the error before one wrong byte has left.
   *
   * @throws BODY_ID_INVALID, BODY_NOT_FOUND, BODY_RANGE_INVALID, BODY_UNAVAILABLE, BODY_TIMEOUT, BODY_CORRUPT,
   *   BODY_OVERLOADED, DATABASE_UNAVAILABLE, DATABASE_OVERLOADED
   */
  get(id: string, options?: GetOptions): Promise<Content>
  /** The same for jobs: `for await (const bytes of bodies.read(id))`. Throws what `get` does, at the first step. */
  read(id: string, options?: ReadOptions): AsyncIterable<Uint8Array>
  /** @throws BODY_ID_INVALID, BODY_NOT_FOUND, DATABASE_UNAVAILABLE, DATABASE_OVERLOADED */
  stat(id: string): Promise<BodyInfo>
}

export interface PutOptions {
  /** With 1, a body of which only one copy could be written is taken, and repaired later. 2 unless said. */
  minCopies?: 1 | 2
  /** Aborts, leaving nothing. */
  signal?: AbortSignal
}

export interface PutResult {
  /** sha256 of the bytes, 64 lower-case hex digits. */
  id: string
  /** Bytes. */
  size: number
  /** Copies that were durable before the answer. */
  copies: number
}

/** `end` is the byte after the last. `suffix` asks for that many last bytes. */
export type ByteRange = { start: number; end?: number } | { suffix: number }

export interface GetOptions {
  range?: ByteRange
  signal?: AbortSignal
}

export interface ReadOptions {
  /** Begin with this byte; the size of the body is allowed and reads nothing. */
  start?: number
  signal?: AbortSignal
}

export interface Content {
  id: string
  /** Of the whole body. */
  size: number
  /** What the stream carries: from `start` to before `end`. */
  start: number
  end: number
  /** Destroy it when nobody wants the rest. */
  stream: Readable
}

export interface BodyInfo {
  id: string
  size: number
  /** Copies that are recorded. */
  copies: number
  /** ISO 8601. */
  createdAt: string
}
