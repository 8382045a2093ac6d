import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Service } from '../../core/lifecycle.ts'
import type { Log } from '../../platform/log.ts'
import type { Site, SiteRole, SiteState } from '../../platform/replication/site.ts'
import type { SyncLease } from './lease.ts'
import type { SyncPrune } from './prune.ts'
import type { Replay } from './replay.ts'
import type { Seeding } from './seeding.ts'
import type { Sequencer } from './sequencer.ts'

export interface SyncServiceOptions {
  site: Pick<Site, 'read'>
  lease: SyncLease
  sequencer: Sequencer
  seeding: Seeding
  replay: Replay
  prune: SyncPrune
  /** What else whoever holds the lease does on a site that has others, one step at a time. */
  alongside?: { everyMs: number; step(role: SiteRole): Promise<unknown> }[]
  clock: Clock
  log: Log
}

/** A site that is alone is looked at this often, ms. */
const aloneMs = 3_000
const standByMs = 1_000
/** How long a change waits at most until it is numbered, ms. */
const sequenceMs = 100
const pruneMs = 3_600_000

/** Numbers, sends, verifies and prunes, in the process that holds the lease. */
export function createSyncService(options: SyncServiceOptions): Service {
  const { clock, log, lease } = options
  const stopping = new AbortController()
  let running: Promise<void> | undefined
  let told: string | undefined

  const guarded = async (what: string, work: () => Promise<unknown>, signal: AbortSignal): Promise<void> => {
    try {
      await work()
      if (told?.startsWith(what)) told = undefined
    } catch (error) {
      const line = `${what}: ${messageOf(error)}`
      if (line !== told) log.warn({ reason: messageOf(error) }, `${what} has trouble and is tried again`)
      told = line
      await clock.sleep(standByMs, signal)
    }
  }
  const loop = async (what: string, everyMs: number, task: Task): Promise<void> => {
    while (!task.signal.aborted) {
      await guarded(what, task.work, task.signal)
      await clock.sleep(everyMs, task.signal)
    }
  }
  const hold = async (state: SiteState): Promise<void> => {
    const { role } = state
    const ended = new AbortController()
    const signal = AbortSignal.any([stopping.signal, ended.signal])
    const tasks = tasksOf(options, role, signal).map(({ what, everyMs, work }) =>
      loop(what, everyMs, { work, signal }),
    )
    if (role === 'leader') tasks.push(options.replay.run(signal))
    while (!signal.aborted && lease.holds() && isSame(await stateNow(options), state)) {
      await clock.sleep(standByMs, signal)
    }
    ended.abort()
    await Promise.all(tasks)
  }
  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      const state = await stateNow(options)
      const role = state?.role
      if (!state || role === 'alone') await clock.sleep(state ? aloneMs : standByMs, stopping.signal)
      else if (await lease.acquire()) await hold(state)
      else await clock.sleep(standByMs, stopping.signal)
      if (role === 'alone' && lease.holds()) await lease.release()
    }
    if (lease.holds()) await lease.release()
  }
  return {
    start: async () => void (running ??= run()),
    stop: async () => {
      stopping.abort()
      await running
    },
  }
}

interface Task {
  signal: AbortSignal
  work(): Promise<unknown>
}

interface Named {
  what: string
  everyMs: number
  work(): Promise<unknown>
}

function tasksOf(options: SyncServiceOptions, role: SiteRole, signal: AbortSignal): Named[] {
  const { sequencer, seeding, replay, prune, alongside = [] } = options
  const others = alongside.map(({ everyMs, step }) => ({
    what: 'fail-over',
    everyMs,
    work: () => step(role),
  }))
  const pruning = { what: 'the pruning of replication', everyMs: pruneMs, work: () => prune.run(signal) }
  if (role !== 'leader') return [...others, pruning]
  let seeded = false
  const sequence = async (): Promise<void> => {
    if ((await sequencer.drain()) > 0) replay.wake()
    seeded ||= await seeding.step()
  }
  return [{ what: 'the numbering of changes', everyMs: sequenceMs, work: sequence }, ...others, pruning]
}

/** Of another lineage nothing is done yet: a site may leave and lead anew between two looks. */
const isSame = (now: SiteState | undefined, then: SiteState): boolean =>
  now?.role === then.role && now.lineage === then.lineage

async function stateNow({ site }: SyncServiceOptions): Promise<SiteState | undefined> {
  try {
    return await site.read()
  } catch {
    // Nobody knows while Postgres is away.
    return undefined
  }
}
