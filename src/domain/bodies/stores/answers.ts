import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import type { Slice } from '../body-store.ts'
import { BODY_UNAVAILABLE } from '../errors.ts'
import { discard } from './http-client.ts'
import type { RemoteHead, RemoteObject } from './remote.ts'

/** What is wanted of a slice, as a header. */
export const rangeHeader = ({ start = 0, end }: Slice = {}): Record<string, string> =>
  start === 0 && end === undefined ? {} : { Range: `bytes=${start}-${end === undefined ? '' : end - 1}` }

/** Ends the exchange with an answer that nobody expected; its connection goes with it. */
export function unexpected(store: string, answer: IncomingMessage): Error {
  answer.destroy()
  return BODY_UNAVAILABLE({ store, reason: `it answered HTTP ${answer.statusCode}` })
}

/** Reads a HEAD, or the head of a GET. */
export function headOf(store: string, answer: IncomingMessage): RemoteHead {
  const { headers } = answer
  const total = /\/(\d+)$/.exec(headers['content-range'] ?? '')?.[1] ?? headers['content-length']
  if (total === undefined || !/^\d+$/.test(total)) {
    answer.destroy()
    throw BODY_UNAVAILABLE({ store, reason: 'it did not say how long the body is' })
  }
  return {
    size: Number(total),
    modifiedAt: Date.parse(headers['last-modified'] ?? '') || 0,
    // Apache calls it weak within the second of the write, and strong later.
    etag: (headers.etag ?? '').replace(/^W\//, ''),
  }
}

/** Asks for the head of the same object. */
type Head = () => Promise<RemoteHead | undefined>

/** The object of a GET: the slice alone, also from a server that does not know ranges. */
export async function objectOf(
  store: string,
  answer: IncomingMessage,
  slice: Slice | undefined,
  head: Head,
): Promise<RemoteObject | undefined> {
  if (answer.statusCode === 404) {
    await discard(answer)
    return undefined
  }
  if (answer.statusCode === 416) return emptySlice(answer, head)
  if (answer.statusCode !== 200 && answer.statusCode !== 206) throw unexpected(store, answer)
  const found = headOf(store, answer)
  const { start = 0, end = found.size } = slice ?? {}
  if (answer.statusCode === 206 && !beginsAt(answer, start)) throw unexpected(store, answer)
  const skipped = answer.statusCode === 200 ? start : 0
  const wanted = Math.max(0, Math.min(end, found.size) - start)
  return {
    ...found,
    stream: Readable.from(part(answer, skipped, wanted), { objectMode: false }).on('close', () =>
      answer.destroy(),
    ),
  }
}

const beginsAt = (answer: IncomingMessage, start: number): boolean =>
  answer.headers['content-range']?.startsWith(`bytes ${start}-`) ?? false

/** The slice begins at the end of the body: nothing, and that is right. Undefined: the object went meanwhile. */
async function emptySlice(answer: IncomingMessage, head: Head): Promise<RemoteObject | undefined> {
  const size = /^bytes \*\/(\d+)$/.exec(answer.headers['content-range'] ?? '')?.[1]
  await discard(answer)
  if (size !== undefined) return nothingOf({ size: Number(size), modifiedAt: 0, etag: '' })
  // Some servers do not tell it here.
  const found = await head()
  return found && nothingOf(found)
}

const nothingOf = (head: RemoteHead): RemoteObject => ({ ...head, stream: Readable.from([]) })

async function* part(answer: IncomingMessage, skipped: number, wanted: number): AsyncGenerator<Buffer> {
  let skip = skipped
  let left = wanted
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    const piece = chunk.subarray(Math.min(skip, chunk.length)).subarray(0, left)
    skip -= Math.min(skip, chunk.length)
    left -= piece.length
    if (piece.length > 0) yield piece
    if (left === 0 && skipped > 0) return
  }
}
