import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import { GATEWAY_STOPPING, UPGRADE_UNDER_WAY } from './errors.ts'
import type { Keeper } from './keeper.ts'
import type { Launcher } from './launcher.ts'
import type { RevisionSpec } from './record.ts'
import type { Retirement } from './retirement.ts'
import type { Roster } from './roster.ts'
import type { Target } from './target.ts'

/** Puts a new revision in the place of the current one. docs/protocols/gateway.md, "Upgrade". */
export interface Upgrades {
  /**
   * @throws REVISION_UNUSABLE, REVISION_IN_USE, UPGRADE_UNDER_WAY, GATEWAY_STOPPING; then nothing has changed
   */
  run(spec: RevisionSpec, revision?: string): Promise<Target>
  /** The revision that is being started. */
  readonly underWay: string | undefined
  /** Resolves when none is under way. */
  idle(): Promise<void>
}

export interface UpgradesOptions {
  roster: Roster
  launcher: Launcher
  keeper: Keeper
  retirement: Retirement
  metrics: Metrics
  log: Log
  stopping: AbortSignal
}

export function createUpgrades(options: UpgradesOptions): Upgrades {
  const { roster, launcher, log, metrics, stopping } = options
  let underWay: Target | undefined
  let last: Promise<unknown> = Promise.resolve()

  const start = async (target: Target): Promise<Target> => {
    try {
      log.info({ revision: target.revision, directory: target.spec.directory }, 'a revision is started')
      await launcher.bringUp(target, { onProcess: roster.save, signal: stopping })
    } catch (error) {
      roster.remove(target, 'failed')
      metrics.count('baton_gateway_upgrades_total', { result: 'failed' })
      log.error({ revision: target.revision }, 'the revision did not come up; nothing else has changed')
      throw error
    } finally {
      underWay = undefined
    }
    switchTo(options, target)
    return target
  }

  return {
    run: (spec, revision) => {
      if (stopping.aborted) throw GATEWAY_STOPPING()
      if (underWay) throw UPGRADE_UNDER_WAY({ revision: underWay.revision })
      underWay = roster.create(spec, revision)
      const started = start(underWay)
      last = started.catch(() => undefined)
      return started
    },
    get underWay() {
      return underWay?.revision
    },
    idle: async () => void (await last),
  }
}

/** One write for both: a gateway that comes after a crash finds the one or the other, never two or none. */
function switchTo({ roster, keeper, retirement, metrics, log }: UpgradesOptions, target: Target): void {
  const old = roster.current
  if (old?.up) retirement.detach(old)
  else if (old) void replaceDead({ roster, keeper, log }, old)
  target.state = 'current'
  roster.save()
  roster.noteUp()
  keeper.watch(target)
  metrics.count('baton_gateway_upgrades_total', { result: 'done' })
  const { revision, process } = target
  log.info({ revision, pid: process?.record.pid, old: old?.revision }, 'new sessions go to the revision')
  retirement.look()
}

/** One that crashed and was to be started again: there is nobody to be served by it. */
async function replaceDead(
  { roster, keeper, log }: Pick<UpgradesOptions, 'roster' | 'keeper' | 'log'>,
  old: Target,
): Promise<void> {
  old.state = 'draining'
  await keeper.abandon(old)
  // The attempt may have succeeded just then.
  old.process?.signal('SIGKILL')
  await old.process?.exited
  roster.remove(old, 'stopped')
  log.warn({ revision: old.revision }, 'the old revision was down and is given up')
}
