import { Readable } from 'node:stream'
import type { Clock } from '../../core/clock.ts'
import type { Admission } from './admission.ts'
import type { ByteRange, Content, GetOptions } from './bodies.ts'
import type { BodyStore } from './body-store.ts'
import type { BodyRow, Catalog } from './catalog.ts'
import { areSealed, type BodyDigest, chunkBytes, chunkCount } from './chunk-digests.ts'
import { openCopy } from './copy-reader.ts'
import { createDeadline } from './deadline.ts'
import { BODY_CORRUPT, BODY_NOT_FOUND, BODY_RANGE_INVALID, BODY_TIMEOUT, BODY_UNAVAILABLE } from './errors.ts'

export interface DeliverOptions {
  /** All stores, also those that take no new bodies. */
  stores: readonly BodyStore[]
  catalog: Catalog
  admission: Admission
  clock: Clock
  timeoutMs: number
  /** A copy was missing or wrong. */
  onSuspect(id: string, error: unknown): void
}

/** A get: resolves when the first chunk that is asked for was verified. */
export async function deliver(options: DeliverOptions, id: string, wish: GetOptions): Promise<Content> {
  const row = await findBody(options.catalog, id)
  const { start, end } = resolveRange(row, wish.range)
  if (row.condemned) await options.catalog.revive(id)
  const leave = await options.admission.enter(wish.signal)
  try {
    const chunks = verifiedBytes(options, row, { start, end })
    const first = await chunks.next().catch(async (error: unknown) => {
      throw await absenceOrLoss(error, options.catalog, id)
    })
    const isWhole = row.size <= chunkBytes && !first.done
    const stream = isWhole ? streamOf(first.value) : streamFrom(resumed(first, chunks))
    stream.once('close', () => {
      leave()
      // A stream that is destroyed before its first read never runs the generator, nor what that would close.
      void chunks.return()
    })
    if (wish.signal) endOn(wish.signal, stream)
    return { id, size: row.size, start, end, stream }
  } catch (error) {
    leave()
    throw error
  }
}

/**
 * Every store says that it has no copy. While there is a row, that is a loss, and nobody may remember it: a copy may be
 * put again, or come back with a disk. Without the row a sweep has removed the body meanwhile.
 */
async function absenceOrLoss(error: unknown, catalog: Catalog, id: string): Promise<unknown> {
  if (!BODY_NOT_FOUND.is(error)) return error
  await findBody(catalog, id)
  return BODY_CORRUPT({ id, reason: 'no store has a copy any more' })
}

/** The row, after it has proved to be the one that was asked for. */
export async function findBody(catalog: Catalog, id: string): Promise<BodyRow> {
  const row = await catalog.find(id)
  if (!row) throw BODY_NOT_FOUND({ id })
  if (row.id !== id || !areSealed(row)) throw BODY_CORRUPT({ id, reason: 'its row is damaged' })
  return row
}

function resolveRange(
  { id, size }: BodyDigest,
  range: ByteRange | undefined,
): { start: number; end: number } {
  if (range === undefined) return { start: 0, end: size }
  if ('suffix' in range) {
    if (!(range.suffix > 0) || size === 0) throw BODY_RANGE_INVALID({ id, size })
    return { start: Math.max(0, size - range.suffix), end: size }
  }
  const end = Math.min(range.end ?? size, size)
  const sound = Number.isSafeInteger(range.start) && range.start >= 0 && range.start < end
  if (!sound) throw BODY_RANGE_INVALID({ id, size })
  return { start: range.start, end }
}

/**
 * Whether a get would find something, without reading it: the row is sound, and a store shows a copy of its length.
 * That its bytes are right only a get can tell.
 *
 * @throws what `deliver` does
 */
export async function checkBody(
  options: Pick<DeliverOptions, 'stores' | 'catalog' | 'onSuspect'>,
  id: string,
): Promise<BodyRow> {
  const row = await findBody(options.catalog, id)
  const failures: unknown[] = []
  for (const store of candidates(options.stores, row)) {
    try {
      const { size } = await store.stat(id)
      if (size === row.size) return row
      throw BODY_CORRUPT({ id, reason: `${store.name} has ${size} bytes instead of ${row.size}` })
    } catch (error) {
      failures.push(error)
      if (isSuspect(error, store, row)) options.onSuspect(id, error)
    }
  }
  const error = verdict(row, [...failures, ...absentStores(options.stores, row)])
  throw await absenceOrLoss(error, options.catalog, id)
}

const streamFrom = (chunks: AsyncIterable<Uint8Array>): Readable =>
  Readable.from(chunks, { objectMode: false, highWaterMark: 1 })

/** Many times cheaper than one over a generator. */
const streamOf = (bytes: Uint8Array): Readable =>
  new Readable({
    highWaterMark: 1,
    read() {
      this.push(bytes)
      this.push(null)
    },
  })

async function* resumed(
  first: IteratorResult<Uint8Array, void>,
  rest: AsyncGenerator<Uint8Array, void>,
): AsyncGenerator<Uint8Array, void> {
  if (!first.done) yield first.value
  yield* rest
}

function endOn(signal: AbortSignal, stream: Readable): void {
  const abort = (): void => void stream.destroy(signal.reason instanceof Error ? signal.reason : undefined)
  if (signal.aborted) return abort()
  signal.addEventListener('abort', abort, { once: true })
  stream.once('close', () => signal.removeEventListener('abort', abort))
}

/**
 * The bytes from `start` to before `end`, each chunk verified before any of it is handed out. When a copy turns
 * out bad or its store goes away in the middle, the next copy goes on at the same chunk.
 *
 * @throws BODY_NOT_FOUND, BODY_CORRUPT, BODY_UNAVAILABLE, BODY_TIMEOUT when no copy is left
 */
export async function* verifiedBytes(
  options: Pick<DeliverOptions, 'stores' | 'clock' | 'timeoutMs' | 'onSuspect'>,
  body: BodyRow,
  { start, end }: { start: number; end: number },
): AsyncGenerator<Uint8Array, void> {
  const failures: unknown[] = []
  const lastChunk = end > start ? Math.ceil(end / chunkBytes) : chunkCount(body.size)
  let index = Math.floor(start / chunkBytes)
  if (body.size === 0) index = 0
  const left = candidates(options.stores, body)
  for (let store = left.shift(); store; store = left.shift()) {
    const deadline = createDeadline(store.name, options.timeoutMs, options.clock)
    const begunAt = index
    let reader: Awaited<ReturnType<typeof openCopy>> | undefined
    try {
      reader = await openCopy(store, body, { index, end: lastChunk }, deadline)
      for (; index < lastChunk; index++) {
        const chunk = await reader.next()
        const offset = index * chunkBytes
        const part = chunk.subarray(Math.max(0, start - offset), Math.min(chunk.length, end - offset))
        if (part.length > 0) yield part
      }
      return
    } catch (error) {
      failures.push(error)
      if (isSuspect(error, store, body)) options.onSuspect(body.id, error)
      // It was good so far: a connection that a slow reader let go cold is no reason to give up its store.
      else if (index > begunAt) left.push(store)
    } finally {
      reader?.close()
    }
  }
  throw verdict(body, [...failures, ...absentStores(options.stores, body)])
}

/** Those that are recorded first; then the others, since a body may have been moved after its row was read. */
function candidates(stores: readonly BodyStore[], { stores: recorded }: BodyRow): BodyStore[] {
  const has = (store: BodyStore): boolean => recorded.includes(store.name)
  return [...stores.filter(has), ...stores.filter((store) => !has(store))]
}

/** A copy in a store that is not configured any more is out of reach, which is not the same as not there. */
const absentStores = (stores: readonly BodyStore[], body: BodyRow): unknown[] =>
  body.stores
    .filter((name) => stores.every((store) => store.name !== name))
    .map((store) => BODY_UNAVAILABLE({ store, reason: 'it is not among BODY_STORES' }))

const isSuspect = (error: unknown, store: BodyStore, body: BodyRow): boolean =>
  BODY_CORRUPT.is(error) || (BODY_NOT_FOUND.is(error) && body.stores.includes(store.name))

/** What no single copy could answer. Absence is believed only when every store said so. */
function verdict(body: BodyRow, failures: unknown[]): unknown {
  const open = failures.find((error) => BODY_UNAVAILABLE.is(error) || BODY_TIMEOUT.is(error))
  const bad = failures.find((error) => BODY_CORRUPT.is(error))
  const other = failures.find((error) => !BODY_NOT_FOUND.is(error))
  return open ?? bad ?? other ?? BODY_NOT_FOUND({ id: body.id })
}
