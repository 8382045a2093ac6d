import type { Clock } from '../../../core/clock.ts'

export interface RateLimit {
  /** Waits until one more state of so many bytes may pass; returns at once when the signal aborts. */
  take(bytes: number, signal?: AbortSignal): Promise<void>
  /** Engines that share the rate. */
  share(engines: number): void
}

export interface RateLimitOptions {
  clock: Clock
  statesPerSecond?: number | undefined
  bytesPerSecond?: number | undefined
}

/** Each state pushes the time of the next one on, by what it costs; a second's worth may be spent at once. */
export function createRateLimit(options: RateLimitOptions): RateLimit {
  const { clock } = options
  let engines = 1
  let freeAt = clock.monotonicMs()
  const costMs = (bytes: number): number => {
    const states = options.statesPerSecond ? 1_000 / options.statesPerSecond : 0
    const volume = options.bytesPerSecond ? (1_000 * bytes) / options.bytesPerSecond : 0
    return Math.max(states, volume) * engines
  }
  return {
    share: (count) => {
      engines = Math.max(1, count)
    },
    take: async (bytes, signal) => {
      const cost = costMs(bytes)
      if (cost === 0) return
      const now = clock.monotonicMs()
      freeAt = Math.max(freeAt, now - 1_000) + cost
      if (freeAt > now) await clock.sleep(freeAt - now, signal)
    },
  }
}
