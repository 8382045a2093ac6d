import { type Clock, toIso } from '../../core/clock.ts'
import { codeOf } from '../../core/errors.ts'
import { withLimit } from '../../core/lifecycle.ts'

/** What was read and when; or that it could not be read, which is shown as such and never as a zero. */
export type Reading<T> = { ok: true; value: T; readAt: string } | { ok: false; code: string; readAt: string }

/** Longest wait for one figure, ms: a store that hangs must not hang the page that tells of it. */
const limitMs = 4_000

export async function read<T>(clock: Clock, work: () => Promise<T>): Promise<Reading<T>> {
  const readAt = toIso(clock.now())
  try {
    return { ok: true, value: await withLimit(work(), limitMs), readAt }
  } catch (error) {
    // Only the code: the text of a driver names hosts.
    return { ok: false, code: codeOf(error) ?? 'NO_ANSWER', readAt }
  }
}

/**
 * Lets all who ask within `forMs` share one look: ten open pages must not cost ten times the statements. A look that
 * took long is shared for ten times as long, so that looking never takes more than a tenth of the stores' time.
 */
export function shared<T>(clock: Clock, forMs: number, work: () => Promise<T>): () => Promise<T> {
  let last: { value: Promise<T>; until: number } | undefined
  const look = async (): Promise<T> => {
    const startedAt = clock.monotonicMs()
    try {
      return await work()
    } finally {
      const endedAt = clock.monotonicMs()
      if (last) last.until = endedAt + Math.min(maxSharedMs, Math.max(forMs, 10 * (endedAt - startedAt)))
    }
  }
  return () => {
    // One that is under way serves whoever comes.
    if (!last || last.until <= clock.monotonicMs()) last = { until: Number.POSITIVE_INFINITY, value: look() }
    return last.value
  }
}

const maxSharedMs = 10_000
