import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { Log } from '../../platform/log.ts'
import type { QueueBackend } from '../../platform/queues/backend.ts'
import type { Ledger, ReleaseCause } from '../../platform/queues/ledger.ts'

export interface DeadRunnersOptions {
  ledger: Pick<Ledger, 'releaseRunner'>
  backend: Pick<QueueBackend, 'handBack'>
  clock: Clock
  log: Log
}

/** Puts back what dead runners held. */
export interface DeadRunners {
  /** Rows, then entries: the other way round, a delivery would find its row held and wait. Never throws. */
  release(runner: string, queues: string[], cause: ReleaseCause): Promise<void>
}

/** Longest time for one of the stores, ms. One that is away is made up for later: see docs/protocols/jobs.md. */
const limitMs = 3_000
/**
 * The entries do not wait longer than this for the rows, ms. Whoever is delivered an entry first counts a crash, so
 * where there was none they wait longer.
 */
const rowsFirstMs = { crash: 250, interruption: 1_000 }
/** A fetch that was under way at the death may bind an entry to the dead runner a moment after it. */
const againMs = 500

export function createDeadRunners({ ledger, backend, clock, log }: DeadRunnersOptions): DeadRunners {
  const releaseRows = async (runner: string, cause: ReleaseCause): Promise<void> => {
    try {
      const jobs = await withLimit(ledger.releaseRunner(runner, cause), limitMs)
      if (jobs.length > 0) log.warn({ runner, jobs, cause }, 'jobs of a dead child are free again')
    } catch (error) {
      log.error(
        { runner, reason: messageOf(error) },
        'rows of a dead child stay held; the next delivery frees them',
      )
    }
  }
  const handBack = async (runner: string, queues: string[]): Promise<void> => {
    const back = async (queue: string): Promise<void> => {
      try {
        await withLimit(backend.handBack(queue, runner), limitMs)
      } catch (error) {
        log.error(
          { runner, queue, reason: messageOf(error) },
          'entries of a dead child stay where they are; they are swept when their locks have run out',
        )
      }
    }
    await Promise.all(queues.map(back))
  }

  return {
    release: async (runner, queues, cause) => {
      const rows = releaseRows(runner, cause)
      await Promise.race([rows, clock.sleep(rowsFirstMs[cause])])
      await Promise.all([rows, handBack(runner, queues)])
      setTimeout(() => void handBack(runner, queues), againMs).unref()
    },
  }
}
