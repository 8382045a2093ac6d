import type { BatonError } from '../../../core/errors.ts'
import { BatonError as BatonFault, messageOf } from '../../../core/errors.ts'
import type { Log } from '../../../platform/log.ts'
import type { Postgres } from '../../../platform/postgres/postgres.ts'
import type { Site, SiteState } from '../../../platform/replication/site.ts'
import type { Digests } from '../digests.ts'
import type { Sequencer } from '../sequencer.ts'
import { FAIL_OVER_ABORTED, FAIL_OVER_MOVED_ON, FAIL_OVER_SUPERSEDED, FAIL_OVER_TIMEOUT } from './errors.ts'
import type { OtherSite } from './other-site.ts'
import { phases } from './phases.ts'
import { abortable, type FailOver, type FailOverRows, type Phase } from './rows.ts'
import type { Succession } from './succession.ts'

export interface FailOverEngineOptions {
  postgres: Postgres
  rows: FailOverRows
  /** On the given Postgres, whose transactions may be guarded. */
  siteOn(postgres: Postgres): Site
  sequencer: Pick<Sequencer, 'drain' | 'heads' | 'atHead'>
  digests: Pick<Digests, 'of'>
  isSeeded(): Promise<boolean>
  /** By the name of a replica; undefined when none is registered under it. */
  connect(name: string, state: SiteState): Promise<OtherSite | undefined>
  succession: Succession
  /** This site's. */
  name: string
  /** Of this release. */
  version: string
  log: Log
  limits?: Partial<Record<Phase, number>>
  /** Called before each step; tests end the process in it. */
  onStep?(failOver: FailOver): Promise<void>
}

/** Brings the fail-over that is under way on. Docs/protocols/sync.md, section 6, is its law. */
export interface FailOverEngine {
  /**
   * One phase, or one look at whether it is over. Two at once, and one that was killed between any two lines, do no harm.
   * Never throws.
   * @returns whether one is under way
   */
  step(): Promise<boolean>
}

/** What a phase does its work with. */
export interface PhaseParts extends FailOverEngineOptions {
  /** Its transactions hold the fail-over in its phase. */
  site: Site
  state: SiteState
  other: OtherSite | undefined
}

/** The longest time of a phase, ms. From `promoting` on there is none: only going on is safe. */
const limitsMs: Partial<Record<Phase, number>> = {
  preflight: 30_000,
  draining: 60_000,
  closed: 20_000,
  flushing: 60_000,
}

export function createFailOverEngine(options: FailOverEngineOptions): FailOverEngine {
  const { rows, log } = options
  let toldOf: string | undefined
  // Once: it is looked at several times a second.
  const tell = (failOver: FailOver | undefined, reason: string): void => {
    const line = `${failOver?.id} ${failOver?.phase} ${reason}`
    if (line === toldOf) return
    toldOf = line
    log.warn({ failOver: failOver?.id, phase: failOver?.phase, reason }, 'the fail-over waits')
  }

  return {
    step: async () => {
      let current: FailOver | undefined
      try {
        current = await rows.running()
        if (!current) return false
        await options.onStep?.(current)
        if (current.error) await open(options, current)
        else await goOn(options, current, tell)
      } catch (error) {
        if (FAIL_OVER_MOVED_ON.is(error)) return true
        log.warn(
          { phase: current?.phase, reason: messageOf(error) },
          'the fail-over has trouble and tries again',
        )
      }
      return true
    },
  }
}

async function goOn(
  options: FailOverEngineOptions,
  failOver: FailOver,
  tell: (failOver: FailOver, reason: string) => void,
): Promise<void> {
  let reason: string | undefined
  try {
    reason = await runPhase(options, failOver)
    if (reason === undefined) return
  } catch (error) {
    if (FAIL_OVER_MOVED_ON.is(error)) throw error
    if (ending.has(codeOf(error))) return giveUp(options, failOver, error as BatonError)
    reason = messageOf(error)
  }
  tell(failOver, reason)
  const { phase } = failOver
  const limitMs = { ...limitsMs, ...options.limits }[phase]
  if (limitMs === undefined || failOver.inPhaseMs < limitMs || !abortable.has(phase)) return
  await giveUp(options, failOver, FAIL_OVER_TIMEOUT({ phase, ms: limitMs, reason }))
}

const codeOf = (error: unknown): string => (error instanceof BatonFault ? error.code : '')
/** Faults after which waiting would change nothing. */
const ending: ReadonlySet<string> = new Set([
  'FAIL_OVER_DIFFERS',
  'FAIL_OVER_SUPERSEDED',
  'SITE_IS_REPLICA',
  'SITE_NOT_LEADER',
])

/** @returns why it is not over yet; undefined when it is */
async function runPhase(options: FailOverEngineOptions, failOver: FailOver): Promise<string | undefined> {
  if (failOver.mode === 'hard') return options.succession.step(failOver)
  const site = options.siteOn(options.rows.guarding(failOver, false))
  const state = await site.read()
  const other = await options.connect(failOver.target, state)
  const phase = phases[failOver.phase]
  return phase?.({ ...options, site, state, other }, failOver)
}

async function giveUp(options: FailOverEngineOptions, failOver: FailOver, error: BatonError): Promise<void> {
  if (!(await options.rows.giveUp(failOver.id, error))) return
  options.log.warn(
    { failOver: failOver.id, phase: failOver.phase, reason: error.message },
    'the fail-over is given up',
  )
  await open(options, { ...failOver, error: { code: error.code, message: error.message } })
}

/**
 * Takes writes again, and only then is it over: who dies in between leaves a row that the next one finds. Nobody else
 * was asked to open; but a hard fail-over there, while this site was away, may have opened it.
 */
async function open(options: FailOverEngineOptions, failOver: FailOver): Promise<void> {
  const site = options.siteOn(options.rows.guarding(failOver, true))
  const state = await site.read()
  if (state.role === 'leader' && state.intake !== 'open' && mayOpen(failOver)) {
    const epoch = await epochElsewhere(options, failOver, state)
    if (epoch > state.epoch) {
      const error = FAIL_OVER_SUPERSEDED({ target: failOver.target, epoch })
      await options.rows.finish(failOver, 'aborted', { error })
      return
    }
    await site.reopen(state.epoch)
  }
  await options.rows.finish(failOver, 'aborted')
}

/**
 * Not what it did not close itself: then the site is closed since another one leads. Nor once that was heard: who is
 * silent now has opened all the same.
 */
const mayOpen = ({ log, error }: FailOver): boolean =>
  log.some(({ phase }) => phase === 'draining') && error?.code !== FAIL_OVER_SUPERSEDED.code

async function epochElsewhere(
  options: FailOverEngineOptions,
  { target }: FailOver,
  state: SiteState,
): Promise<number> {
  try {
    const other = await options.connect(target, state)
    return (await other?.hello())?.epoch ?? 0
  } catch {
    // Unreachable: it cannot have been asked to open by us, and to stay closed for ever would be no fail-over.
    return 0
  }
}

/** Gives up the fail-over that is under way, at the wish of somebody. The engine ends it, or whoever calls `step`. */
export const abortedBy = (actor: string): BatonError => FAIL_OVER_ABORTED({ actor })
