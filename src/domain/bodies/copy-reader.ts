import type { Readable } from 'node:stream'
import { BatonError, messageOf } from '../../core/errors.ts'
import type { BodyStore } from './body-store.ts'
import { type BodyDigest, chunkBytes, isChunk } from './chunk-digests.ts'
import type { Deadline } from './deadline.ts'
import { BODY_CORRUPT, BODY_UNAVAILABLE } from './errors.ts'

/** Reads one copy of a body chunk by chunk, and hands out only what is right. */
export interface CopyReader {
  /** @throws BODY_CORRUPT for wrong bytes, or what the store threw */
  next(): Promise<Uint8Array>
  close(): void
}

/**
 * Opens a copy at chunk number `index`, to be read to before chunk number `end`.
 *
 * @throws what the store throws, and BODY_CORRUPT when the copy has another size
 */
export async function openCopy(
  store: BodyStore,
  body: BodyDigest,
  range: { index: number; end: number },
  deadline: Deadline,
): Promise<CopyReader> {
  if (store.take && range.index === 0 && body.size <= chunkBytes) return takeCopy(store, store.take, body)
  let index = range.index
  const slice = { start: index * chunkBytes, end: Math.min(body.size, range.end * chunkBytes) }
  const { size, stream } = await store.open(body.id, slice)
  // Without a listener an error between two reads would end the process; the next read meets it anyway.
  stream.on('error', () => undefined)
  if (size !== body.size) {
    stream.destroy()
    throw otherSize(store, body, `${size}`)
  }
  const take = createTaker(stream)
  return {
    next: async () => {
      const wanted = Math.min(chunkBytes, body.size - index * chunkBytes)
      const chunk = await deadline.within(take(wanted)).catch((error: unknown) => {
        throw unavailable(store, error)
      })
      if (chunk.length !== wanted) {
        throw BODY_UNAVAILABLE({ store: store.name, reason: 'its answer broke off' })
      }
      if (!isChunk(body, index, chunk)) {
        throw otherBytes(store, body)
      }
      index++
      return chunk
    },
    close: () => void stream.destroy(),
  }
}

/** A body of one chunk, which is there whole before anything of it is handed out. */
async function takeCopy(
  store: BodyStore,
  take: NonNullable<BodyStore['take']>,
  body: BodyDigest,
): Promise<CopyReader> {
  const bytes = await take(body.id, body.size)
  if (bytes.length !== body.size) {
    throw otherSize(store, body, bytes.length > body.size ? `more than ${body.size}` : `${bytes.length}`)
  }
  if (!isChunk(body, 0, bytes)) throw otherBytes(store, body)
  return { next: async () => bytes, close: () => undefined }
}

const otherSize = (store: BodyStore, body: BodyDigest, size: string): Error =>
  BODY_CORRUPT({ id: body.id, reason: `${store.name} has ${size} bytes instead of ${body.size}` })
const otherBytes = (store: BodyStore, { id }: BodyDigest): Error =>
  BODY_CORRUPT({ id, reason: `${store.name} has other bytes` })

const unavailable = (store: BodyStore, error: unknown): BatonError =>
  error instanceof BatonError
    ? error
    : BODY_UNAVAILABLE({ store: store.name, reason: messageOf(error).split(',')[0] ?? '' }, { cause: error })

/** Takes exactly so many bytes of a stream each time; fewer only where it ends. */
function createTaker(stream: Readable): (wanted: number) => Promise<Uint8Array> {
  const iterator = stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>
  let rest: Uint8Array = Buffer.alloc(0)
  const refill = async (): Promise<boolean> => {
    const next = await iterator.next()
    if (next.done) return false
    rest = next.value
    return true
  }
  return async (wanted) => {
    if (rest.length === 0 && wanted > 0) await refill()
    // A store that reads in chunks of this size hands them over without a copy.
    if (rest.length >= wanted) {
      const whole = rest.subarray(0, wanted)
      rest = rest.subarray(wanted)
      return whole
    }
    const chunk = Buffer.allocUnsafe(wanted)
    let filled = 0
    while (filled < wanted && (rest.length > 0 || (await refill()))) {
      const part = rest.subarray(0, wanted - filled)
      chunk.set(part, filled)
      filled += part.length
      rest = rest.subarray(part.length)
    }
    return chunk.subarray(0, filled)
  }
}
