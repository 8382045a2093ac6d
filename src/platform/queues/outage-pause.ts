import { backoffMs } from '../../core/backoff.ts'
import type { Clock } from '../../core/clock.ts'
import { codeOf } from '../../core/errors.ts'
import type { Log } from '../log.ts'
import { type ActiveRun, linesOf } from './active-run.ts'

export interface Trouble {
  error: unknown
  retry: number
  what: string
}

/** Before a write of a run is tried again; ends early when `until` aborts. */
export async function pause(
  engine: { log: Log; clock: Clock },
  run: ActiveRun,
  trouble: Trouble,
  until: AbortSignal,
): Promise<void> {
  const { error, retry, what } = trouble
  // All slots wait through the same outage: a line at its start and now and then is enough.
  if (retry === 1 || retry % 10 === 0) {
    engine.log.warn({ ...linesOf(run), code: codeOf(error), retry }, `${what}; it is tried again`)
  }
  await engine.clock.sleep(backoffMs(retry, { baseMs: 100, maxMs: 5_000 }), until)
}
