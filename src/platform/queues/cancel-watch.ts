import type { Clock } from '../../core/clock.ts'
import { codeOf, messageOf } from '../../core/errors.ts'
import type { Log } from '../log.ts'
import type { Subscription, WakeBus } from '../wake-bus.ts'
import type { Ledger } from './ledger.ts'

/** Where the id of a job is published whose cancel was asked for, after its row says so. */
export const cancelChannel = 'job-cancel'

export interface CancelWatchOptions {
  ledger: Pick<Ledger, 'cancelRequested'>
  wakeBus: WakeBus
  clock: Clock
  log: Log
  /** Ids of the rows that this process holds. */
  held(): string[]
  onCancel(id: string): void
  /** How often the rows are looked at, for wakes that were lost, ms. */
  everyMs: number
}

/** Hears of cancels from any node. The bus is for speed only: what counts is the row, looked at now and then. */
export interface CancelWatch {
  /** Returns at once; the bus may be away. */
  start(): void
  stop(): Promise<void>
}

export function createCancelWatch(options: CancelWatchOptions): CancelWatch {
  const { ledger, wakeBus, clock, log } = options
  const stopping = new AbortController()
  let subscription: Subscription | undefined

  const look = async (ids: string[]): Promise<void> => {
    if (ids.length === 0) return
    try {
      for (const id of await ledger.cancelRequested(ids)) options.onCancel(id)
    } catch (error) {
      log.debug({ code: codeOf(error) }, 'cancels could not be looked for')
    }
  }
  const lookNowAndThen = async (): Promise<void> => {
    for (;;) {
      await clock.sleep(options.everyMs, stopping.signal)
      if (stopping.signal.aborted) return
      await look(options.held())
    }
  }
  const hear = (id: string): void => {
    if (options.held().includes(id)) void look([id])
  }
  const subscribe = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      try {
        subscription = await wakeBus.subscribe(cancelChannel, hear)
        if (stopping.signal.aborted) await subscription.unsubscribe()
        return
      } catch (error) {
        log.debug({ reason: messageOf(error) }, 'the wake bus does not answer; cancels are looked for')
        await clock.sleep(options.everyMs, stopping.signal)
      }
    }
  }
  return {
    start: () => {
      wakeBus.onRestored(() => void look(options.held()))
      void subscribe()
      void lookNowAndThen()
    },
    stop: async () => {
      stopping.abort()
      await subscription?.unsubscribe()
    },
  }
}
