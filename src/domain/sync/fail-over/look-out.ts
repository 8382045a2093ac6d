import type { Clock } from '../../../core/clock.ts'
import { messageOf } from '../../../core/errors.ts'
import type { Log } from '../../../platform/log.ts'
import type { Site, SiteState } from '../../../platform/replication/site.ts'
import type { FailOverEngine } from './engine.ts'
import type { OtherSite } from './other-site.ts'
import type { Succession } from './succession.ts'

export interface LookOutOptions {
  engine: FailOverEngine
  succession: Pick<Succession, 'yieldTo'>
  site: Pick<Site, 'read'>
  /** Names of the replicas of this site. */
  replicas(): Promise<string[]>
  connect(name: string, state: SiteState): Promise<OtherSite | undefined>
  clock: Clock
  log: Log
  /** Time between two looks for a fail-over, ms; while one is under way there is none. Default 500. */
  lookMs?: number
  /** Time between two questions to the replicas who leads, ms. Default 2,000. */
  askMs?: number
}

/** What whoever holds the sync lease does besides numbering and sending. */
export interface LookOut {
  /** To be called again and again. Never throws. */
  step(): Promise<void>
  /** Somebody heard of a higher epoch: asks the replicas at once. Never throws. */
  ask(): Promise<void>
}

/**
 * Brings fail-overs on, and asks the replicas of a site that leads whether one of them leads at a higher epoch: whoever was
 * away during a hard fail-over learns of it so.
 */
export function createLookOut(options: LookOutOptions): LookOut {
  const { engine, clock, lookMs = 500, askMs = 2_000 } = options
  let nextLookMs = Number.NEGATIVE_INFINITY
  let nextAskMs = Number.NEGATIVE_INFINITY
  const ask = async (): Promise<void> => {
    nextAskMs = clock.monotonicMs() + askMs
    await askReplicas(options)
  }
  return {
    ask,
    step: async () => {
      if (clock.monotonicMs() < nextLookMs) return
      const isUnderWay = await engine.step()
      if (!isUnderWay) nextLookMs = clock.monotonicMs() + lookMs
      if (!isUnderWay && clock.monotonicMs() >= nextAskMs) await ask()
    },
  }
}

/** Who does not answer is asked again. */
async function askReplicas(options: LookOutOptions): Promise<void> {
  const { site, replicas, log } = options
  try {
    const state = await site.read()
    if (state.role !== 'leader') return
    await Promise.all((await replicas()).map((name) => askOne(options, name, state)))
  } catch (error) {
    log.debug({ reason: messageOf(error) }, 'nobody can say who leads now')
  }
}

async function askOne(
  { connect, succession, log }: LookOutOptions,
  name: string,
  state: SiteState,
): Promise<void> {
  try {
    const hello = await (await connect(name, state))?.hello()
    if (hello && hello.epoch > state.epoch) await succession.yieldTo(name, hello)
  } catch (error) {
    log.debug({ replica: name, reason: messageOf(error) }, 'a replica does not say who leads')
  }
}
