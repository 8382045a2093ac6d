import { messageOf } from '../../core/errors.ts'
import { BODY_INCOMPLETE, BODY_TOO_LARGE } from './errors.ts'

const pieceBytes = 262_144

export interface PieceLimits {
  maxBytes: number
  signal?: AbortSignal | undefined
}

/**
 * Gathers what a source yields into pieces worth a write of their own.
 *
 * @throws BODY_TOO_LARGE, BODY_INCOMPLETE when the source fails, the reason of the signal when that aborts
 */
export async function* pieces(
  source: AsyncIterable<Uint8Array>,
  { maxBytes, signal }: PieceLimits,
): AsyncGenerator<Uint8Array> {
  let gathered: Uint8Array[] = []
  let gatheredBytes = 0
  let total = 0
  for await (const bytes of untilAborted(source, signal)) {
    total += bytes.length
    if (total > maxBytes) throw BODY_TOO_LARGE({ maxBytes })
    gathered.push(bytes)
    gatheredBytes += bytes.length
    if (gatheredBytes < pieceBytes) continue
    yield joined(gathered)
    gathered = []
    gatheredBytes = 0
  }
  if (gatheredBytes > 0) yield joined(gathered)
}

const joined = (parts: Uint8Array[]): Uint8Array =>
  parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts)

/** A source that falls silent must not hold the stores: the signal ends the wait for its next bytes too. */
async function* untilAborted(
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]()
  let abort: () => void = () => undefined
  // A promise for each wait. A race with one that lives as long as the body would hold every chunk of it.
  const next = (): Promise<IteratorResult<Uint8Array, unknown>> =>
    new Promise((resolve, reject) => {
      abort = () => reject(signal?.reason as Error)
      if (signal?.aborted) abort()
      else iterator.next().then(resolve, reject)
    })
  const onAbort = (): void => abort()
  signal?.addEventListener('abort', onAbort)
  let ended = false
  try {
    for (let result = await next(); !result.done; result = await next()) yield result.value
    ended = true
  } catch (error) {
    if (signal?.aborted) throw signal.reason as Error
    ended = true
    throw BODY_INCOMPLETE({ reason: messageOf(error) }, { cause: error })
  } finally {
    signal?.removeEventListener('abort', onAbort)
    // Not waited for: a source that is stuck in `next` does not return either.
    if (!ended) void iterator.return?.()?.catch(() => undefined)
  }
}
