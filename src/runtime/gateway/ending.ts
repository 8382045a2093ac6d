import type { Clock } from '../../core/clock.ts'
import type { Log } from '../../platform/log.ts'
import type { Lease, OpenStream } from './lease.ts'
import type { Target } from './target.ts'

/** The steps of a target's end. */
export interface Ending {
  /** Closes streams, not all at once. */
  closeSpread(streams: readonly OpenStream[]): void
  /** Resolves when nothing is under way, or has had its time. */
  empty(target: Target): Promise<void>
  /** TERM, and KILL after `limitMs`. @returns whether it ended by itself */
  end(target: Target, limitMs: number): Promise<boolean>
}

export interface EndingOptions {
  clock: Clock
  log: Log
  /** See docs/configuration.md. */
  streamCloseMs: number
  drainMs: number
}

/** What closing a stream may take when its time has come, ms. */
const lastWordsMs = 10_000
const stepMs = 50

export const isHeld = ({ inFlight, streams }: Lease): boolean => inFlight > 0 || streams.length > 0

export function createEnding({ clock, log, streamCloseMs, drainMs }: EndingOptions): Ending {
  const closeSpread = (streams: readonly OpenStream[]): void => {
    for (const stream of streams) setTimeout(() => stream.close(), Math.random() * streamCloseMs).unref()
  }
  return {
    closeSpread,
    empty: async ({ lease, process }) => {
      const began = clock.monotonicMs()
      const longestMs = Math.max(drainMs, lease.streams.length > 0 ? streamCloseMs + lastWordsMs : 0)
      closeSpread(lease.streams)
      while (isHeld(lease) && process?.running === true) {
        if (clock.monotonicMs() - began >= longestMs) return
        await clock.sleep(stepMs)
      }
    },
    end: async ({ process, revision }, limitMs) => {
      if (!process) return true
      process.signal('SIGTERM')
      const over = new AbortController()
      void process.exited.then(() => over.abort())
      await clock.sleep(limitMs, over.signal)
      if (!process.running) return true
      log.warn({ revision, limitMs }, 'a target did not end in time and is killed')
      process.signal('SIGKILL')
      await process.exited
      return false
    },
  }
}
