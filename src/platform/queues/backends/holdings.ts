import type { IQueueBackend } from 'bullmq'
import type { Clock } from '../../../core/clock.ts'
import { withLimit } from '../../../core/lifecycle.ts'
import type { ConsumeOptions } from '../backend.ts'
import { asError } from './entries.ts'
import type { Taken } from './exchange.ts'

/** An entry that a consumer has. */
export interface Holding {
  readonly taken: Taken
  readonly isDelivered: boolean
  /** It takes up one of the places: its handler may be running. */
  inPlace: boolean
  /** Monotonic. */
  renewedMs: number
}

/** The entries of one consumer, their places and their locks. */
export interface Holdings {
  /** Entries that may come now. */
  room(): number
  /** Whether it was delivered and is not over. */
  has(id: string): boolean
  ids(): string[]
  /** @param isDelivered false for one that only goes back */
  add(taken: Taken, isDelivered: boolean): Holding
  /** Another one may have its place. Repeats change nothing. */
  free(holding: Holding): void
  delete(holding: Holding): void
  /** Resolves when there is none, or after `limitMs`. */
  empty(limitMs: number): Promise<void>
  /** Keeps the locks until the signal aborts. `onLost` is told of those that somebody else has by now. */
  renew(options: RenewOptions): Promise<void>
}

export interface RenewOptions {
  backend: Pick<IQueueBackend, 'extendLocks'>
  lockMs: number
  signal: AbortSignal
  onLost(id: string): void
  onError(error: Error): void
}

/** Most entries whose handler is over and whose end is being written: so many for each place, and so many in all. */
const endingsPerPlace = 10
const maxEndings = 200
const renewMs = 1_000

export function createHoldings(
  { concurrency, ahead = () => 0 }: Pick<ConsumeOptions, 'concurrency' | 'ahead'>,
  clock: Clock,
): Holdings {
  // Not by their id: one that came back while its first run goes on is held twice.
  const endings = Math.max(concurrency, Math.min(concurrency * endingsPerPlace, maxEndings))
  const holdings = new Set<Holding>()
  const delivered = new Set<string>()
  let inPlace = 0
  let onEmpty: (() => void)[] = []

  const free = (holding: Holding): void => {
    if (!holding.inPlace) return
    holding.inPlace = false
    inPlace--
  }
  return {
    room: () => {
      const places = concurrency + ahead()
      return Math.min(places - inPlace, places + endings - holdings.size)
    },
    has: (id) => delivered.has(id),
    ids: () => [...holdings].map(({ taken }) => taken.id),
    add: (taken, isDelivered) => {
      const holding = { taken, isDelivered, inPlace: isDelivered, renewedMs: clock.monotonicMs() }
      holdings.add(holding)
      if (isDelivered) {
        inPlace++
        delivered.add(taken.id)
      }
      return holding
    },
    free,
    delete: (holding) => {
      free(holding)
      holdings.delete(holding)
      if (holding.isDelivered) delivered.delete(holding.taken.id)
      if (holdings.size === 0) for (const tell of onEmpty.splice(0)) tell()
    },
    empty: async (limitMs) => {
      if (holdings.size === 0) return
      const empty = new Promise<void>((resolve) => onEmpty.push(resolve))
      await withLimit(empty, limitMs).catch(() => undefined)
      onEmpty = []
    },
    renew: async (options) => {
      while (!options.signal.aborted) {
        await clock.sleep(renewMs, options.signal)
        await renewOld([...holdings], clock, options).catch((error: unknown) =>
          options.onError(asError(error)),
        )
      }
    },
  }
}

async function renewOld(
  holdings: Holding[],
  clock: Clock,
  { backend, lockMs, onLost }: RenewOptions,
): Promise<void> {
  const now = clock.monotonicMs()
  const old = holdings.filter((each) => now - each.renewedMs >= renewMs)
  if (old.length === 0) return
  const ids = old.map(({ taken }) => taken.id)
  const tokens = old.map(({ taken }) => taken.token)
  const lost = await backend.extendLocks(ids, tokens, lockMs)
  for (const each of old) each.renewedMs = now
  for (const id of lost) onLost(id)
}
