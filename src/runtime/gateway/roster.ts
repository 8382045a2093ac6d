import { randomBytes } from 'node:crypto'
import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import {
  GATEWAY_STATE_UNWRITABLE,
  REVISION_IN_USE,
  REVISION_NOT_DETACHED,
  REVISION_NOT_FOUND,
} from './errors.ts'
import type { Pin } from './pin.ts'
import type { RevisionSpec, StateFile, TargetRecord } from './record.ts'
import { recordOf, type Target } from './target.ts'

/** The targets that live, and where each request goes. What it knows stands in the state file, too. */
export interface Roster {
  readonly targets: readonly Target[]
  readonly current: Target | undefined
  /** A new one, `starting`, written down. @throws REVISION_IN_USE, GATEWAY_STATE_UNWRITABLE */
  create(spec: RevisionSpec, revision?: string): Target
  /** One that an earlier gateway knew. */
  restore(record: TargetRecord): Target
  /** Targets so far, as an earlier gateway counted them. */
  continueFrom(count: number): void
  /** It is gone: as `stopped`, or as `failed` when it never was current. */
  remove(target: Target, state: 'stopped' | 'failed'): void
  /** Writes everything down; never throws. */
  save(): void
  /** @throws REVISION_NOT_FOUND, REVISION_NOT_DETACHED */
  detached(revision: string): Target
  /** Where a request goes; undefined: there is nobody just now. */
  place(pin: Pin | undefined): Placement | undefined
  /** Resolves when a current target takes requests, after `limitMs` at the latest. */
  whenUp(limitMs: number): Promise<void>
  /** The current target takes requests (again). */
  noteUp(): void
}

export interface Placement {
  target: Target
  /** The revision that the session was on, when it cannot be there any more. */
  movedFrom?: string
}

export interface RosterOptions {
  clock: Clock
  file: StateFile
  open(record: TargetRecord): Target
  /** The disk is full, or gone. What is served goes on; a crash of the gateway now would find an old state. */
  onUnwritten(error: unknown): void
}

export function createRoster({ clock, file, open, onUnwritten }: RosterOptions): Roster {
  const targets = new Map<string, Target>()
  let count = 0
  const rises = createRises(clock)

  const write = (): void => file.write({ count, targets: [...targets.values()].map(recordOf) })
  const save = forgiving(write, onUnwritten)
  const living = (revision: string): Target | undefined =>
    [...targets.values()].find((target) => target.revision === revision)
  const current = (): Target | undefined => {
    // Asked with every request.
    for (const target of targets.values()) if (target.state === 'current') return target
    return undefined
  }
  const restore = (record: TargetRecord): Target => {
    const target = open(record)
    targets.set(target.id, target)
    return target
  }

  return {
    get targets() {
      return [...targets.values()]
    },
    get current() {
      return current()
    },
    create: (spec, wanted) => {
      const namesake = wanted === undefined ? undefined : living(wanted)
      if (namesake) throw REVISION_IN_USE({ revision: namesake.revision, state: namesake.state })
      count++
      const id = `t${count}-${randomBytes(6).toString('hex')}`
      const revision = wanted ?? (living(`r${count}`) ? id : `r${count}`)
      try {
        const target = restore({ id, revision, spec, state: 'starting', createdAt: clock.now() })
        write()
        return target
      } catch (error) {
        targets.get(id)?.output.close()
        targets.delete(id)
        throw GATEWAY_STATE_UNWRITABLE({ reason: messageOf(error) }, { cause: error })
      }
    },
    restore,
    continueFrom: (before) => {
      count = Math.max(count, before)
    },
    remove: (target, state) => {
      target.state = state
      target.up = false
      target.output.close()
      targets.delete(target.id)
      save()
    },
    save,
    detached: (revision) => assertDetached(living(revision), revision),
    place: (pin) => placeOf(pin ? targets.get(pin.target) : undefined, pin, current()),
    whenUp: async (limitMs) => {
      if (!current()?.up) await rises.next(limitMs)
    },
    noteUp: rises.note,
  }
}

const forgiving = (work: () => void, onError: (error: unknown) => void) => (): void => {
  try {
    work()
  } catch (error) {
    onError(error)
  }
}

function assertDetached(target: Target | undefined, revision: string): Target {
  if (!target) throw REVISION_NOT_FOUND({ revision })
  if (target.state !== 'detached') throw REVISION_NOT_DETACHED({ revision, state: target.state })
  return target
}

function placeOf(
  pinned: Target | undefined,
  pin: Pin | undefined,
  current: Target | undefined,
): Placement | undefined {
  if (pinned?.up && pinned.state === 'detached') return { target: pinned }
  if (!current?.up) return undefined
  // A current target that was restarted is still the one that the session was pinned to.
  return pin === undefined || pinned === current
    ? { target: current }
    : { target: current, movedFrom: pin.revision }
}

/** For those who wait for a current target. */
function createRises(clock: Clock) {
  let risen = new AbortController()
  return {
    next: (limitMs: number): Promise<void> => clock.sleep(limitMs, risen.signal),
    note: (): void => {
      risen.abort()
      risen = new AbortController()
    },
  }
}
