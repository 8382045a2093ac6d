import type { Clock } from '../../core/clock.ts'
import { BODY_TIMEOUT } from './errors.ts'

export interface Deadline {
  readonly timeoutMs: number
  /** Settles as `work` does, or fails with BODY_TIMEOUT. The work goes on, so what comes late goes to `onLate`. */
  within<T>(work: Promise<T>, onLate?: (result: T) => void): Promise<T>
}

interface Waiting {
  endsAtMs: number
  expire(): void
}

/** Every wait for a store ends: a disk or a host that hangs must not hold callers, and it is not a "not found". */
export function createDeadline(store: string, timeoutMs: number, clock: Clock): Deadline {
  const queue = createExpiries(clock)
  return {
    timeoutMs,
    within: (work, onLate) =>
      new Promise((resolve, reject) => {
        let late = false
        const waiting = {
          endsAtMs: clock.monotonicMs() + timeoutMs,
          expire: () => {
            late = true
            reject(BODY_TIMEOUT({ store, timeoutMs }))
          },
        }
        queue.add(waiting)
        work.then(
          (result) => {
            if (late) return onLate?.(result)
            queue.remove(waiting)
            resolve(result)
          },
          (error: unknown) => {
            if (!late) queue.remove(waiting)
            reject(error as Error)
          },
        )
      }),
  }
}

interface Expiries {
  /** Those that are added later must not end earlier. */
  add(waiting: Waiting): void
  remove(waiting: Waiting): void
}

/** One sleep for all who wait at once: a small body has eight waits, and a timer for each costs as much as they do. */
function createExpiries(clock: Clock): Expiries {
  const waiting = new Set<Waiting>()
  let asleep: AbortController | undefined

  const watch = async (signal: AbortSignal): Promise<void> => {
    for (let [first] = waiting; first; [first] = waiting) {
      const { endsAtMs } = first
      await clock.sleep(endsAtMs - clock.monotonicMs(), signal)
      if (signal.aborted) return
      for (const each of waiting) {
        if (each.endsAtMs > endsAtMs) break
        waiting.delete(each)
        each.expire()
      }
    }
    asleep = undefined
  }

  return {
    add: (each) => {
      waiting.add(each)
      if (asleep) return
      asleep = new AbortController()
      void watch(asleep.signal)
    },
    remove: (each) => {
      waiting.delete(each)
      if (waiting.size > 0) return
      // A timer that nobody needs would keep the process from ending. The reason saves an error with a stack.
      asleep?.abort('settled')
      asleep = undefined
    },
  }
}
