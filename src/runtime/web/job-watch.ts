import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { JobFinder } from './job-finder.ts'
import type { JobDocument } from './job-view.ts'

/** Tells of changes of jobs to those who watch them. Looks only while somebody does, and once for all of them. */
export interface JobWatch {
  /** `onLook` gets the job after each look at the rows, changed or not; undefined: it is there no more. */
  watch(id: string, onLook: (job: JobDocument | undefined) => void): () => void
  readonly watchers: number
  /** Tells nobody anything any more. */
  stop(): void
}

export interface JobWatchOptions {
  finder: JobFinder
  clock: Clock
  log: Log
  /** Pause between two looks, ms. */
  everyMs?: number
}

export function createJobWatch(options: JobWatchOptions): JobWatch {
  const { finder, clock, log } = options
  const everyMs = options.everyMs ?? 250
  const watchers = new Map<string, Set<(job: JobDocument | undefined) => void>>()
  let count = 0
  let looking = false
  let stopped = new AbortController()

  const look = async (): Promise<void> => {
    const ids = [...watchers.keys()]
    try {
      const found = await finder.findMany(ids)
      for (const id of ids) for (const tell of watchers.get(id) ?? []) tell(found.get(id))
    } catch (error) {
      // Who watches goes on to wait: the next look may succeed, and the stream says nothing wrong meanwhile.
      log.warn({ reason: messageOf(error) }, 'Watched jobs could not be read')
    }
  }

  const lookUntilAlone = async (): Promise<void> => {
    looking = true
    while (watchers.size > 0) {
      await clock.sleep(everyMs, stopped.signal)
      if (watchers.size > 0) await look()
    }
    looking = false
  }

  return {
    watch: (id, onLook) => {
      const set = watchers.get(id) ?? new Set()
      watchers.set(id, set.add(onLook))
      count++
      if (!looking) void lookUntilAlone()
      return () => {
        if (!set.delete(onLook)) return
        count--
        if (set.size === 0 && watchers.get(id) === set) watchers.delete(id)
      }
    },
    get watchers() {
      return count
    },
    stop: () => {
      watchers.clear()
      count = 0
      stopped.abort()
      stopped = new AbortController()
    },
  }
}
