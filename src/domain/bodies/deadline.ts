import type { Clock } from '../../core/clock.ts'
import { BODY_TIMEOUT } from './errors.ts'

export interface Deadline {
  readonly timeoutMs: number
  /** Settles as `work` does, or fails with BODY_TIMEOUT. The work goes on, so what comes late goes to `onLate`. */
  within<T>(work: Promise<T>, onLate?: (result: T) => void): Promise<T>
}

/** Every wait for a store ends: a disk or a host that hangs must not hold callers, and it is not a "not found". */
export function createDeadline(store: string, timeoutMs: number, clock: Clock): Deadline {
  return {
    timeoutMs,
    within: async (work, onLate) => {
      const settled = new AbortController()
      let late = false
      const limit = clock.sleep(timeoutMs, settled.signal).then(() => {
        if (settled.signal.aborted) return undefined as never
        late = true
        throw BODY_TIMEOUT({ store, timeoutMs })
      })
      work.then(
        (result) => late && onLate?.(result),
        () => undefined,
      )
      try {
        return await Promise.race([work, limit])
      } finally {
        // With a reason of its own: the usual one is an error with a stack, made anew each time.
        settled.abort('settled')
      }
    },
  }
}
