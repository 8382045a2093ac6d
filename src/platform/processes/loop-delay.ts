import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { Clock } from '../../core/clock.ts'

/** How late the event loop of this process is. */
export interface LoopDelay {
  /** The longest delay of the last 10 to 20 s, ms: somebody who looks now and then should see it. */
  peakMs(): number
}

/** Pause between two measurements, ms; shorter delays are not seen. */
const resolutionMs = 20
const windowMs = 10_000

export function watchLoopDelay(clock: Clock): LoopDelay {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs })
  histogram.enable()
  let windowFrom = clock.monotonicMs()
  let before = 0
  return {
    peakMs: () => {
      // Its values are the times between two measurements, so the pause itself is no delay.
      const now = Math.max(0, Math.round(histogram.max / 1e6) - resolutionMs)
      const peak = Math.max(before, now)
      if (clock.monotonicMs() - windowFrom >= windowMs) {
        before = now
        windowFrom = clock.monotonicMs()
        histogram.reset()
      }
      return peak
    },
  }
}
