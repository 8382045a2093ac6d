import type { Clock } from '../../core/clock.ts'
import { withLimit } from '../../core/lifecycle.ts'
import { type Postgres, withAnswerIn } from '../../platform/postgres/postgres.ts'

/**
 * Which process numbers and sends. It only saves work: two at once do no harm, so what is held is not asked for before each
 * step, but kept.
 */
export interface SyncLease {
  /** Whether the last renewal is young enough to be still good, by this process's own clock. */
  holds(): boolean
  /** Takes it when it is free, and keeps it. Again: renews it. Never throws: without Postgres nobody holds it. */
  acquire(): Promise<boolean>
  /** Gives it to whoever asks next. Never throws: one that is not given back is free after 5 s. */
  release(): Promise<void>
}

export interface SyncLeaseOptions {
  postgres: Postgres
  clock: Clock
  /** One of this process alone. */
  holder: string
  onError?(error: unknown): void
}

const lastsMs = 5_000
const renewEveryMs = 1_000
const answerMs = 2_000
/** Not believed to its end: who pauses between the look and the deed would be late. */
const marginMs = 1_000

/** One that lasts longer than any can was taken before the clock of Postgres was put back, and its holder may be dead. */
const take = {
  name: 'sync-lease-take',
  text: `UPDATE sync_lease SET holder = $1, until = clock_timestamp() + ${lastsMs} * interval '1 ms'
    WHERE holder = $1 OR until NOT BETWEEN clock_timestamp() AND clock_timestamp() + ${lastsMs} * interval '1 ms'`,
}
const give = `UPDATE sync_lease SET holder = NULL, until = 'epoch' WHERE holder = $1`

export function createSyncLease({ postgres, clock, holder, onError }: SyncLeaseOptions): SyncLease {
  const soon = withAnswerIn(postgres, answerMs)
  let trustedUntilMs = Number.NEGATIVE_INFINITY
  let ended = new AbortController()
  let keeping: Promise<void> | undefined

  const renew = async (): Promise<boolean> => {
    // From before the question: the answer may have taken a while, and the database counts from the question.
    const askedMs = clock.monotonicMs()
    try {
      const { rowCount } = await soon.query({ ...take, values: [holder] })
      if (!rowCount) trustedUntilMs = Number.NEGATIVE_INFINITY
      else if (!ended.signal.aborted) trustedUntilMs = askedMs + lastsMs - marginMs
      return rowCount === 1
    } catch (error) {
      onError?.(error)
      return false
    }
  }
  const holds = (): boolean => clock.monotonicMs() < trustedUntilMs
  const keep = async ({ signal }: AbortController): Promise<void> => {
    while (!signal.aborted && holds()) {
      await clock.sleep(renewEveryMs, signal)
      if (!signal.aborted) await renew()
    }
    if (!signal.aborted) keeping = undefined
  }

  return {
    holds,
    acquire: async () => {
      if (keeping && holds()) return true
      if (ended.signal.aborted) ended = new AbortController()
      if (!(await renew())) return false
      keeping ??= keep(ended)
      return holds()
    },
    release: async () => {
      ended.abort()
      trustedUntilMs = Number.NEGATIVE_INFINITY
      await keeping
      keeping = undefined
      await withLimit(soon.query(give, [holder]), answerMs).catch((error: unknown) => onError?.(error))
    },
  }
}
