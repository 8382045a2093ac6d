import type { Clock } from '../../core/clock.ts'
import type { Log } from '../log.ts'
import type { SupervisedChild } from './supervised-child.ts'

export interface RollLimits {
  /** How long an old child may go on with what it has, ms; then iterations are asked to go back. */
  patienceMs: number
  /** After this it is interrupted, ms. */
  deadlineMs: number
  /** How long it has to hand back; then it is killed, ms. */
  graceMs: number
  /** How long the next slot waits for the old child of this one to end, ms. */
  nextSlotMs: number
}

/** What a roll needs of a slot. */
export interface RollSlot {
  number: number
  current(): SupervisedChild | undefined
  launch(): SupervisedChild
  moveIn(child: SupervisedChild): void
  /** The slot is empty and nobody is on the way. */
  refill(dead: SupervisedChild): void
}

export interface RollOptions {
  slots(): RollSlot[]
  isStopping(): boolean
  limits: RollLimits
  clock: Clock
  log: Log
}

export interface Roll {
  /** Rolls all slots; while that goes on, asks for one more roll. */
  request(): Promise<void>
  /** Whether a new child of the slot is on its way. */
  isFilling(slot: number): boolean
}

export function createRoll(options: RollOptions): Roll {
  const { log } = options
  let running: Promise<void> | undefined
  let again = false
  let filling: number | undefined

  const rollAll = async (): Promise<void> => {
    do {
      again = false
      log.info('rolling the children')
      const isNew = await rollOnce()
      if (isNew) log.info('all children are new')
    } while (again && !options.isStopping())
  }

  const rollOnce = async (): Promise<boolean> => {
    for (const slot of options.slots()) {
      const isNew = !options.isStopping() && (await rollSlot(slot))
      if (options.isStopping()) return false
      if (!isNew) {
        log.error(
          { slot: slot.number },
          'the new child did not become ready: the roll ends, the old ones stay',
        )
        return false
      }
    }
    return true
  }

  const rollSlot = async (slot: RollSlot): Promise<boolean> => {
    filling = slot.number
    const next = slot.launch()
    const isUp = await next.up
    filling = undefined
    if (!isUp) {
      // The old one may have died meanwhile, and nobody filled its place, since this child was coming.
      if (slot.current() === undefined) slot.refill(next)
      return false
    }
    const old = slot.current()
    slot.moveIn(next)
    if (old && !options.isStopping()) {
      retire(old, options)
      await Promise.race([old.exited, options.clock.sleep(options.limits.nextSlotMs)])
    }
    return true
  }

  return {
    request: () => {
      again = true
      running ??= rollAll().finally(() => {
        running = undefined
      })
      return running
    },
    isFilling: (slot) => filling === slot,
  }
}

/** The old child finishes what it has, and has long for it: a roll is no reason to interrupt a job. */
function retire(old: SupervisedChild, { limits, log }: RollOptions): void {
  const jobs = old.active.map((job) => job.id)
  log.info({ slot: old.slot, runner: old.runner, jobs }, 'the old child finishes what it has')
  old.command({ type: 'retire' })
  const timers = [
    setTimeout(() => old.command({ type: 'drain' }), limits.patienceMs),
    setTimeout(
      () =>
        old.command({
          type: 'interrupt',
          cause: 'roll',
          reason: 'the roll is over',
          graceMs: limits.graceMs,
        }),
      limits.deadlineMs,
    ),
    // A blocked loop hears no interruption, and the watchdog's kill would count against its jobs.
    setTimeout(() => old.kill('roll'), limits.deadlineMs + limits.graceMs),
  ]
  void old.exited.then(() => timers.forEach((timer) => clearTimeout(timer)))
}
