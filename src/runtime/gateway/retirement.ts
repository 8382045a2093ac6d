import type { Clock } from '../../core/clock.ts'
import type { Log } from '../../platform/log.ts'
import type { Ending } from './ending.ts'
import type { OpenStream } from './lease.ts'
import type { Roster } from './roster.ts'
import type { Target } from './target.ts'

/** How targets leave. docs/protocols/gateway.md, "When a detached target drains". */
export interface Retirement {
  /** From now on it serves its own sessions alone. To be called before it is written down. */
  detach(target: Target): void
  /** Puts off the day on which it is too old. */
  extend(target: Target, byMs: number): void
  /** Begins to drain it; may be repeated. */
  drain(target: Target, why: string): void
  /** Looks after every detached target: whether anybody holds it, its age, their number. */
  look(): void
  /** A stream was opened on a target that is on its way out, maybe. */
  onStream(target: Target, stream: OpenStream): void
}

export interface RetirementOptions {
  roster: Roster
  ending: Ending
  clock: Clock
  log: Log
  limits: RetirementLimits
}

/** Durations in ms; see docs/configuration.md. */
export interface RetirementLimits {
  maxAgeMs: number
  detachedMax: number
  /** From TERM to KILL. */
  killAfterMs: number
}

export function createRetirement({ roster, ending, clock, log, limits }: RetirementOptions): Retirement {
  const draining = new Set<Target>()

  const leave = async (target: Target): Promise<void> => {
    await ending.empty(target)
    await ending.end(target, limits.killAfterMs)
    roster.remove(target, 'stopped')
    log.info({ revision: target.revision }, 'a target has drained and stopped')
  }

  const drain = (target: Target, why: string): void => {
    if (draining.has(target)) return
    draining.add(target)
    log.info({ revision: target.revision, why, sessions: target.lease.sessions }, 'a target drains')
    target.state = 'draining'
    roster.save()
    leave(target)
      .catch((error: unknown) => log.error({ err: error }, 'a target could not be drained'))
      .finally(() => draining.delete(target))
  }

  return {
    detach: (target) => {
      target.state = 'detached'
      target.detachedAt = clock.now()
      target.tooOldAt = target.detachedAt + limits.maxAgeMs
      target.tooOldMs = clock.monotonicMs() + limits.maxAgeMs
      ending.closeSpread(target.lease.streams.filter(({ pinned }) => !pinned))
    },
    extend: (target, byMs) => {
      target.tooOldAt = Math.max(target.tooOldAt ?? 0, clock.now()) + byMs
      target.tooOldMs = clock.monotonicMs() + (target.tooOldAt - clock.now())
      roster.save()
      log.info({ revision: target.revision, byMs }, 'a detached target may stay longer')
    },
    drain,
    look: () => {
      const detached = roster.targets.filter(({ state }) => state === 'detached')
      const oldestFirst = detached.toSorted((a, b) => (a.detachedAt ?? 0) - (b.detachedAt ?? 0))
      const tooMany = new Set(oldestFirst.slice(0, Math.max(0, detached.length - limits.detachedMax)))
      for (const target of detached) {
        const isTooOld = clock.monotonicMs() >= (target.tooOldMs ?? Number.POSITIVE_INFINITY)
        if (tooMany.has(target)) drain(target, `more than ${limits.detachedMax} are detached`)
        else if (isTooOld) drain(target, 'it is too old')
        else if (target.lease.empty) drain(target, 'nobody holds it')
      }
    },
    onStream: (target, stream) => {
      const leaves = target.state === 'draining' || (target.state === 'detached' && !stream.pinned)
      if (leaves) ending.closeSpread([stream])
    },
  }
}
