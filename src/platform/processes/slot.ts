import type { Clock } from '../../core/clock.ts'
import type { Log } from '../log.ts'
import { createRestartPolicy } from './restart-policy.ts'
import type { SupervisedChild } from './supervised-child.ts'

/** One of the places of a master: a child, or the wait for one. */
export interface Slot {
  readonly number: number
  /** The child that has the place; one that retires has it no more. */
  readonly current: SupervisedChild | undefined
  /** Deaths in a row that came too early. */
  readonly failures: number
  /** Deaths in a row before the child was ever up. */
  readonly failedBoots: number
  /** Time to the next fork, ms, when one is put off. */
  forkInMs(): number | undefined
  /** Forks now. */
  fill(): void
  /** The place is somebody else's. */
  moveIn(child: SupervisedChild): void
  /** Its child is dead. @returns whether the place was its own */
  vacate(dead: SupervisedChild): boolean
  /** Notes the death for the back-off. @returns how long to wait with the next fork, ms */
  noteDeath(dead: SupervisedChild): number
  /** Forks after the delay, unless somebody moved in. */
  fillLater(delayMs: number): void
  /** Forks no more. */
  close(): void
}

export interface SlotOptions {
  number: number
  launch(slot: number): SupervisedChild
  clock: Clock
  log: Log
  random: (() => number) | undefined
}

export function createSlot(options: SlotOptions): Slot {
  const { number, clock, log } = options
  const policy = createRestartPolicy(options.random)
  let current: SupervisedChild | undefined
  let timer: NodeJS.Timeout | undefined
  let forkAt = 0
  let closed = false

  const fill = (): void => {
    timer = undefined
    if (!closed) current ??= options.launch(number)
  }

  return {
    number,
    get current() {
      return current
    },
    get failures() {
      return policy.failures
    },
    get failedBoots() {
      return policy.failedBoots
    },
    forkInMs: () => (timer ? Math.max(0, Math.round(forkAt - clock.monotonicMs())) : undefined),
    fill,
    moveIn: (child) => {
      clearTimeout(timer)
      timer = undefined
      current = child
    },
    vacate: (dead) => {
      if (current !== dead) return false
      current = undefined
      return true
    },
    noteDeath: (dead) => policy.afterDeath(dead.upForMs()),
    fillLater: (delayMs) => {
      if (delayMs > 0)
        log.warn({ slot: number, delayMs, failures: policy.failures }, 'the next fork is put off')
      forkAt = clock.monotonicMs() + delayMs
      clearTimeout(timer)
      timer = setTimeout(fill, delayMs)
    },
    close: () => {
      closed = true
      clearTimeout(timer)
      timer = undefined
    },
  }
}
