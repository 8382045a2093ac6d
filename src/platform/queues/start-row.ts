import { type ActiveRun } from './active-run.ts'
import type { StartResult } from './ledger.ts'
import { pause } from './outage-pause.ts'
import type { Engine } from './run-engine.ts'

/** Nobody waits for it any more, or Postgres does not let this process start it. */
export type NotStarted = { kind: 'called-off' | 'unstarted' }

/** How long a row is tried to be started before its entry is left to others, ms. */
const startWithinMs = 8_000
/** What a suspect waits while another one runs here, ms. */
const suspectPauseMs = 1_000

/**
 * Asked again for a while: the same token finds a start whose answer was lost. Then others may try, since it may be only
 * this process that Postgres does not let in, for example after its password was changed.
 */
export async function startRow(engine: Engine, run: ActiveRun): Promise<StartResult | NotStarted> {
  const { id } = run.delivery
  const untilMs = engine.clock.monotonicMs() + startWithinMs
  for (let retry = 1; ; retry++) {
    try {
      const result = await engine.ledger.start(id, { token: run.token, runner: engine.runner })
      if (result.kind !== 'started') return result
      run.attempt = result.attempt
      run.maxAttempts = result.maxAttempts
      run.interruptions = result.interruptions
      run.origin = result.context
      if (!run.settled && !engine.suspects.admits(run, result.crashes)) {
        await engine.ledger.finish(id, run.token, { kind: 'snooze', delayMs: suspectPauseMs })
        return { kind: 'held' }
      }
      if (!run.settled) return result
      // Nobody waited for this answer any more: give the row back, or it is held until this process is gone.
      await engine.ledger.finish(id, run.token, { kind: 'interrupted' }).catch(() => undefined)
      return { kind: 'called-off' }
    } catch (error) {
      if (run.settled || engine.draining.aborted) return { kind: 'called-off' }
      if (engine.clock.monotonicMs() >= untilMs) return { kind: 'unstarted' }
      await pause(engine, run, { error, retry, what: 'a job could not be started' }, engine.draining)
    }
  }
}
