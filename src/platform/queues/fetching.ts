import type { Clock } from '../../core/clock.ts'
import type { Consumer } from './backend.ts'
import type { Ledger } from './ledger.ts'

/** Whether the consumers of a process fetch. */
export interface Fetching {
  /** For good. */
  quiet(): void
  /**
   * A row could not be started: what this process took would be missing to others, whom Postgres may let in. So it
   * fetches nothing before Postgres answers it.
   */
  pause(): void
}

export interface FetchingOptions {
  consumers: readonly Pick<Consumer, 'quiet' | 'resume'>[]
  ledger: Pick<Ledger, 'cancelRequested'>
  clock: Clock
}

const askEveryMs = 1_000
/** That of no job: any answer will do. */
const nobody = '00000000-0000-0000-0000-000000000000'

export function createFetching({ consumers, ledger, clock }: FetchingOptions): Fetching {
  const ended = new AbortController()
  let isPaused = false

  const answers = (): Promise<boolean> =>
    ledger.cancelRequested([nobody]).then(
      () => true,
      () => false,
    )
  const untilAnswered = async (): Promise<void> => {
    for (const consumer of consumers) consumer.quiet()
    while (!ended.signal.aborted && !(await answers())) await clock.sleep(askEveryMs, ended.signal)
    isPaused = false
    if (!ended.signal.aborted) for (const consumer of consumers) consumer.resume()
  }
  return {
    quiet: () => {
      ended.abort()
      for (const consumer of consumers) consumer.quiet()
    },
    pause: () => {
      if (isPaused || ended.signal.aborted) return
      isPaused = true
      void untilAnswered()
    },
  }
}
