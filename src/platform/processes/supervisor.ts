import { randomUUID } from 'node:crypto'
import type { Clock } from '../../core/clock.ts'
import type { BatonError } from '../../core/errors.ts'
import { messageOf } from '../../core/errors.ts'
import type { Log } from '../log.ts'
import type { ChildExit, Fork } from './child.ts'
import { WORKER_NEVER_READY } from './errors.ts'
import { beatMs } from './messages.ts'
import { createRoll, type Roll, type RollLimits, type RollSlot } from './roll.ts'
import { createSlot, type Slot } from './slot.ts'
import {
  type ChildNews,
  type ChildState,
  createSupervisedChild,
  type SupervisedChild,
} from './supervised-child.ts'
import { createWatch } from './watch.ts'

/** Keeps a child in every slot. Knows nothing of jobs. docs/protocols/worker-stop.md is its law. */
export interface Supervisor {
  /** Forks a child a slot. */
  start(): void
  /** Every child goes quiet, those to come too. */
  quiet(): void
  /** Slot after slot gets a new child. During a roll: one more follows. Resolves when no roll is left. */
  roll(): Promise<void>
  /** Forks no more; every child drains and ends. Those that are not up yet have no job and are killed. */
  drain(): void
  /** After drain. */
  interrupt(reason: string, graceMs: number): void
  /** SIGKILL to what is left at the deadline of the stop. @returns how many */
  kill(): number
  /** Every living child, those that retire too. */
  children(): SupervisedChild[]
  /** Slots without a child, and when the next is forked. */
  waiting(): WaitingSlot[]
  /** Children that ended in a stop otherwise than with 0. */
  readonly unclean: number
  /** Resolves when no child lives and the hand-backs of all are through; after `drain`. */
  gone(): Promise<void>
}

export interface WaitingSlot {
  slot: number
  /** Early deaths in a row. */
  failures: number
  forkInMs: number
}

export interface SupervisorOptions {
  slots: number
  fork: Fork
  bootTimeoutMs: number
  /** Silence of an event loop after which the child is ended, ms. */
  watchdogMs: number
  rollLimits: RollLimits
  /** Records the runner before the child takes jobs. Retries by itself; the child waits. */
  record(child: SupervisedChild): Promise<void>
  /** The child is dead: hand back what it held. */
  onDeath(child: SupervisedChild, exit: ChildExit): Promise<void>
  onNews?(news: ChildNews): void
  /** A child is up. */
  onUp(child: SupervisedChild): void
  /** No child was ever ready, and there is no reason to hope. */
  onHopeless(error: BatonError): void
  clock: Clock
  log: Log
  random?: () => number
}

/** The exit code of a child that was told to hand back and could not. */
const forcedCode = 75
/** Of children that take jobs, or will. */
const takesJobs: ReadonlySet<ChildState> = new Set(['starting', 'waiting', 'up'])
/** So many boots of a slot may fail before the master gives up, when none ever worked. */
const hopelessBoots = 3

/** What the supervisor knows; the functions below change it. */
interface Crew {
  options: SupervisorOptions
  children: Set<SupervisedChild>
  slots: Slot[]
  roll: Roll
  /** Hand-backs of the dead that are under way. */
  burials: Set<Promise<void>>
  everReady: boolean
  isQuiet: boolean
  stopping: boolean
  unclean: number
  whenGone: (() => void)[]
}

export function createSupervisor(options: SupervisorOptions): Supervisor {
  const { log, watchdogMs } = options
  const crew = createCrew(options)
  const { children, slots } = crew
  const watch = createWatch({ children, watchdogMs, log })
  let ticking: NodeJS.Timeout | undefined

  return {
    start: () => {
      for (const slot of slots) slot.fill()
      ticking = setInterval(watch.tick, beatMs(watchdogMs))
    },
    quiet: () => {
      crew.isQuiet = true
      for (const child of children) {
        if (takesJobs.has(child.state)) child.command({ type: 'quiet' })
      }
    },
    roll: () => crew.roll.request(),
    drain: () => drain(crew),
    interrupt: (reason, graceMs) => {
      for (const child of children) child.command({ type: 'interrupt', cause: 'stop', reason, graceMs })
    },
    kill: () => {
      const left = [...children].filter((child) => child.state !== 'killed')
      for (const child of left) child.kill('stop')
      return left.length
    },
    children: () => [...children],
    waiting: () => waitingSlots(slots),
    get unclean() {
      return crew.unclean
    },
    gone: async () => {
      await new Promise<void>((resolve) => {
        crew.whenGone.push(resolve)
        settleGone(crew)
      })
      clearInterval(ticking)
    },
  }
}

function createCrew(options: SupervisorOptions): Crew {
  const { clock, log, random, rollLimits } = options
  const crew: Crew = {
    options,
    children: new Set(),
    slots: [],
    roll: createRoll({
      slots: () => crew.slots.map((slot) => rollSlot(crew, slot)),
      isStopping: () => crew.stopping,
      limits: rollLimits,
      clock,
      log,
    }),
    burials: new Set(),
    everReady: false,
    isQuiet: false,
    stopping: false,
    unclean: 0,
    whenGone: [],
  }
  for (let number = 1; number <= options.slots; number++) {
    crew.slots.push(createSlot({ number, clock, log, random, launch: (slot) => launch(crew, slot) }))
  }
  return crew
}

const rollSlot = (crew: Crew, slot: Slot): RollSlot => ({
  number: slot.number,
  current: () => slot.current,
  launch: () => launch(crew, slot.number),
  moveIn: slot.moveIn,
  refill: (dead) => refill(crew, slot, dead),
})

function launch(crew: Crew, slotNumber: number): SupervisedChild {
  const { options } = crew
  const child = createSupervisedChild({
    fork: options.fork,
    identity: { runner: randomUUID(), slot: slotNumber },
    bootTimeoutMs: options.bootTimeoutMs,
    admit: async (ready) => {
      crew.everReady = true
      await options.record(ready)
      return !crew.isQuiet
    },
    onNews: (news) => options.onNews?.(news),
    clock: options.clock,
    log: options.log,
  })
  crew.children.add(child)
  void child.up.then((isUp) => {
    if (isUp) noteUp(crew, child)
  })
  void child.exited.then((exit) => noteExit(crew, child, exit))
  return child
}

function noteUp(crew: Crew, child: SupervisedChild): void {
  const { slot, runner, pid, state } = child
  crew.options.log.info({ slot, runner, pid, state }, 'child is up')
  crew.options.onUp(child)
}

function noteExit(crew: Crew, child: SupervisedChild, exit: ChildExit): void {
  crew.children.delete(child)
  logExit(crew.options.log, child, exit)
  // One that never took a job can have lost none, however it ended.
  if (crew.stopping && lossOf(child, exit) !== 'none' && child.upForMs() !== undefined) crew.unclean++
  bury(crew, child, exit)
  const slot = crew.slots[child.slot - 1]
  if (slot?.vacate(child)) refill(crew, slot, child)
  settleGone(crew)
}

function bury(crew: Crew, child: SupervisedChild, exit: ChildExit): void {
  const burial = crew.options
    .onDeath(child, exit)
    .catch((error: unknown) =>
      crew.options.log.error(
        { runner: child.runner, reason: messageOf(error) },
        'hand-back of a dead child failed',
      ),
    )
    .finally(() => {
      crew.burials.delete(burial)
      settleGone(crew)
    })
  crew.burials.add(burial)
}

function refill(crew: Crew, slot: Slot, dead: SupervisedChild): void {
  if (crew.stopping) return
  const delayMs = slot.noteDeath(dead)
  if (!crew.everReady && (dead.endedFor === 'boot' || slot.failedBoots >= hopelessBoots)) {
    const reason =
      dead.endedFor === 'boot'
        ? `not within ${crew.options.bootTimeoutMs} ms`
        : `one ended ${slot.failedBoots} times before`
    crew.options.onHopeless(WORKER_NEVER_READY({ reason }))
    return
  }
  // A roll has a new child on its way into this slot; it moves in, or the roll calls this again.
  if (!crew.roll.isFilling(slot.number)) slot.fillLater(delayMs)
}

function drain(crew: Crew): void {
  crew.stopping = true
  for (const slot of crew.slots) slot.close()
  for (const child of crew.children) {
    if (child.upForMs() === undefined) child.kill('stop')
    else if (child.state !== 'interrupted') child.command({ type: 'drain' })
  }
  // There may be none: all wait for their next fork, or the boot has not come so far.
  settleGone(crew)
}

function settleGone(crew: Crew): void {
  if (!crew.stopping || crew.children.size > 0 || crew.burials.size > 0) return
  for (const resolve of crew.whenGone.splice(0)) resolve()
}

const waitingSlots = (slots: Slot[]): WaitingSlot[] =>
  slots.flatMap(({ number, failures, forkInMs }) => {
    const inMs = forkInMs()
    return inMs === undefined ? [] : [{ slot: number, failures, forkInMs: inMs }]
  })

/** What becomes of what a child held at its end: it held nothing, was ended on purpose, or took itself down. */
export type Loss = 'none' | 'interruption' | 'crash'

/** @returns `crash` also for a handler that calls `process.exit(0)`, and for a child that the watchdog ended */
export function lossOf(child: SupervisedChild, exit: ChildExit): Loss {
  if (child.saidGoodbye && exit.code === 0) return 'none'
  const atDeadline = child.endedFor === 'stop' || child.endedFor === 'roll'
  // It ends itself just before the deadline when it cannot hand back.
  const byUs = exit.signal === 'SIGKILL' || exit.code === forcedCode
  return atDeadline && byUs ? 'interruption' : 'crash'
}

function logExit(log: Log, child: SupervisedChild, exit: ChildExit): void {
  const { slot, runner, pid } = child
  const fields = { slot, runner, pid, code: exit.code, signal: exit.signal }
  const loss = lossOf(child, exit)
  if (loss === 'none') {
    log.info(fields, 'child has ended')
    return
  }
  const jobs = child.active.map((job) => job.id)
  const why = exit.error ? { reason: exit.error.message } : {}
  const what = loss === 'crash' ? 'child died' : 'child was ended at a deadline'
  log.error({ ...fields, jobs, ...why }, what)
}
