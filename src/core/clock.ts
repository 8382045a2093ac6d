/** The one place that reads time. Everything else is given a Clock, so that tests can turn it. */
export interface Clock {
  /** Wall time, ms since the Unix epoch. Only for what people and other machines read. */
  now(): number
  /** Monotonic time in ms from an arbitrary start. For every duration and deadline: it never jumps. */
  monotonicMs(): number
  /** Resolves after `ms`, or at once when the signal aborts; never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

export function createSystemClock(): Clock {
  return {
    now: () => Date.now(),
    monotonicMs: () => performance.now(),
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal?.aborted) return resolve()
        const finish = () => {
          clearTimeout(timer)
          signal?.removeEventListener('abort', finish)
          resolve()
        }
        const timer = setTimeout(finish, Math.max(0, ms))
        signal?.addEventListener('abort', finish, { once: true })
      }),
  }
}

/** An instant as ISO 8601 in UTC, the only form in which Baton shows times. */
export const toIso = (epochMs: number): string => new Date(epochMs).toISOString()
