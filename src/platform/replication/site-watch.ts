import type { Clock } from '../../core/clock.ts'
import type { Service } from '../../core/lifecycle.ts'
import type { Site, SiteState } from './site.ts'

/** What this site is, as it was read last: for whoever asks at every request. The fence alone is binding. */
export interface SiteWatch extends Service {
  /** Undefined until it was read once. While Postgres is away the last one stays. */
  readonly state: SiteState | undefined
  /** Called at each change, the first reading included. @returns what ends it */
  onChange(listener: (state: SiteState) => void): () => void
  /** Reads it now. Calls are answered one after the other, so that an older reading never follows a newer one. */
  refresh(): Promise<SiteState>
}

export interface SiteWatchOptions {
  site: Pick<Site, 'read'>
  clock: Clock
  /** Default 1,000. */
  everyMs?: number
  onError(error: unknown): void
}

export function createSiteWatch({ site, clock, everyMs = 1_000, onError }: SiteWatchOptions): SiteWatch {
  const listeners = new Set<(state: SiteState) => void>()
  const stopping = new AbortController()
  let state: SiteState | undefined
  let reading: Promise<unknown> = Promise.resolve()
  let watching: Promise<void> | undefined

  const take = (found: SiteState): SiteState => {
    if (state && isSame(state, found)) return found
    state = found
    for (const listener of listeners) {
      try {
        listener(found)
      } catch (error) {
        // The others are told all the same, and the watch goes on.
        onError(error)
      }
    }
    return found
  }
  const refresh = (): Promise<SiteState> => {
    const next = reading.then(async () => take(await site.read()))
    reading = next.catch(() => undefined)
    return next
  }
  const watch = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      await clock.sleep(everyMs, stopping.signal)
      if (!stopping.signal.aborted) await refresh().catch(onError)
    }
  }

  return {
    get state() {
      return state
    },
    onChange: (listener) => {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
    refresh,
    start: async () => {
      if (watching || stopping.signal.aborted) return
      watching = refresh()
        .then(() => undefined, onError)
        .then(watch)
      await reading
    },
    stop: async () => {
      stopping.abort()
      await watching
    },
  }
}

const isSame = (a: SiteState, b: SiteState): boolean =>
  a.role === b.role &&
  a.intake === b.intake &&
  a.epoch === b.epoch &&
  a.lineage === b.lineage &&
  a.leader === b.leader
