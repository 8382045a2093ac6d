import type { Clock } from '../../core/clock.ts'

/**
 * The places of one queue in this process: as many handlers as it may run at once. While handlers are quick, more
 * deliveries than that are on their way, so that the next ones are started together and are there when a place gets
 * free. One that waits in vain goes back: its row is held by us, and others may have a place for it.
 */
export interface Places {
  /** Deliveries that may come besides those that have a place. */
  ahead(): number
  /** Resolves with whether there is a place: false after a wait that was too long, and at a drain. */
  enter(): Promise<boolean>
  /** @param tookMs how long the handler ran; absent when it did not */
  leave(tookMs?: number): void
}

/** Deliveries on their way at once that make a statement worth its price. */
const worthwhile = 40
/** In what time those that are ahead should have their turn, and when they go back, ms. */
const soonMs = 25
const patienceMs = 100

export function createPlaces(concurrency: number, clock: Clock, draining: AbortSignal): Places {
  let free = concurrency
  let waiting: { sinceMs: number; admit: (has: boolean) => void }[] = []
  let meanMs: number | undefined
  let watching = false

  const dismiss = (sinceMs: number): void => {
    const tired = waiting.filter((each) => each.sinceMs <= sinceMs)
    waiting = waiting.filter((each) => each.sinceMs > sinceMs)
    for (const { admit } of tired) admit(false)
  }
  const watch = async (): Promise<void> => {
    watching = true
    while (waiting.length > 0) {
      await clock.sleep(soonMs)
      dismiss(clock.monotonicMs() - patienceMs)
    }
    watching = false
  }
  draining.addEventListener('abort', () => dismiss(Number.POSITIVE_INFINITY), { once: true })

  return {
    ahead: () => {
      // A single place is often meant as an order, which starts side by side would not keep.
      if (concurrency === 1 || meanMs === undefined || draining.aborted) return 0
      return Math.max(0, Math.min(worthwhile - concurrency, Math.floor((soonMs * concurrency) / meanMs)))
    },
    enter: () => {
      if (free > 0) {
        free--
        return Promise.resolve(true)
      }
      if (draining.aborted) return Promise.resolve(false)
      return new Promise((admit) => {
        waiting.push({ sinceMs: clock.monotonicMs(), admit })
        if (!watching) void watch()
      })
    },
    leave: (tookMs) => {
      if (tookMs !== undefined) meanMs = meanMs === undefined ? tookMs : 0.9 * meanMs + 0.1 * tookMs
      const next = waiting.shift()
      if (next) next.admit(true)
      else free++
    },
  }
}

/** Those of every queue. */
export function createAllPlaces(
  concurrency: number,
  clock: Clock,
  draining: AbortSignal,
): (queue: string) => Places {
  const known = new Map<string, Places>()
  return (queue) => {
    const places = known.get(queue) ?? createPlaces(concurrency, clock, draining)
    known.set(queue, places)
    return places
  }
}
