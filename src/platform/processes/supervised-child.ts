import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Log } from '../log.ts'
import type { ChildExit, ChildIdentity, Fork } from './child.ts'
import type { ActiveJob, Command, EndCause, Report, WaitingReport } from './messages.ts'

export type ChildState =
  | 'booting'
  /** Ready, and waits for its runner to be recorded. */
  | 'ready'
  /** Was told to take jobs, and connects to the queues. */
  | 'starting'
  /** As starting, but the queue engine does not answer. */
  | 'waiting'
  | 'up'
  | 'quiet'
  /** Quiet, and ends when nothing is left: the old child of a roll. */
  | 'retiring'
  | 'draining'
  | 'interrupted'
  | 'killed'

/** One life of one child, from the fork to the exit. */
export interface SupervisedChild extends ChildIdentity {
  readonly pid: number | undefined
  readonly state: ChildState
  /** What it serves, as it said when it was ready. */
  readonly queues: string[]
  /** As its last beat had it. */
  readonly active: ActiveJob[]
  readonly rssBytes: number
  /** Of its event loop: what it told, or how long it has been silent. */
  loopDelayMs(): number
  /** True once it takes jobs, or is quiet as it was told; false when it ended before. */
  readonly up: Promise<boolean>
  readonly exited: Promise<ChildExit>
  /** What it was interrupted or killed for, the last of it. */
  readonly endedFor: EndCause | undefined
  /** It said that it ends by itself, holding nothing. */
  readonly saidGoodbye: boolean
  /** Since it was told to take jobs, ms; undefined when it never was. */
  upForMs(): number | undefined
  command(command: ChildCommand): void
  /** Asks for a beat, and resolves when it has come, or after `limitMs`: a blocked event loop sends none. */
  refresh(limitMs: number): Promise<void>
  kill(cause: EndCause): void
  /** Counts a tick without a beat. @returns how many there were in a row */
  missBeat(): number
}

/** What changes its state. */
type ChildCommand = Exclude<Command, { type: 'tell' }>

/** A child waits for a store, or has counted something. */
export type ChildNews = Extract<Report, { type: 'waiting' | 'counts' }>

export interface SupervisedChildOptions {
  fork: Fork
  identity: ChildIdentity
  bootTimeoutMs: number
  /** Records the runner. The child takes jobs after it, or stays quiet when it answers false. */
  admit(child: SupervisedChild): Promise<boolean>
  /** What it says that is not about its own state. */
  onNews(news: ChildNews): void
  clock: Clock
  log: Log
}

/** How long a child may wait for its record before that is told, ms. */
const sayUnrecordedMs = 1_000
const unrecordedReport: WaitingReport = {
  type: 'waiting',
  for: 'Postgres',
  reason: 'a new child cannot be recorded',
}

/** Longer than the pause between two beats of a loop that runs, ms. */
const silenceMs = 2_000

const stateAfter = {
  start: 'starting',
  quiet: 'quiet',
  retire: 'retiring',
  drain: 'draining',
  interrupt: 'interrupted',
} as const satisfies Record<ChildCommand['type'], ChildState>

export function createSupervisedChild(options: SupervisedChildOptions): SupervisedChild {
  const { identity, clock } = options
  const forked = options.fork(identity)
  const { promise: up, resolve: settleUp } = Promise.withResolvers<boolean>()
  let upAt: number | undefined
  const pulse = createPulse(clock)
  const child: Mutable<SupervisedChild> = {
    ...identity,
    pid: forked.pid,
    state: 'booting',
    queues: [],
    active: [],
    rssBytes: 0,
    loopDelayMs: pulse.delayMs,
    endedFor: undefined,
    saidGoodbye: false,
    up,
    exited: forked.exited,
    command: (next) => {
      if (child.state === 'killed') return
      child.state = stateAfter[next.type]
      if (next.type === 'interrupt') child.endedFor = next.cause
      forked.send(next)
    },
    kill: (cause) => {
      child.endedFor = cause
      child.state = 'killed'
      forked.kill('SIGKILL')
    },
    refresh: (limitMs) => untilBeat(forked, pulse, clock.sleep(limitMs)),
    upForMs: () => (upAt === undefined ? undefined : clock.monotonicMs() - upAt),
    missBeat: pulse.miss,
  }
  const bootTimer = setTimeout(() => endSlowBoot(child, options), options.bootTimeoutMs)
  const onReady = async (): Promise<void> => {
    clearTimeout(bootTimer)
    child.state = 'ready'
    const unrecorded = setTimeout(() => options.onNews(unrecordedReport), sayUnrecordedMs)
    const mayStart = await options.admit(child).finally(() => clearTimeout(unrecorded))
    if ((child.state as ChildState) !== 'ready') return
    child.command({ type: mayStart ? 'start' : 'quiet' })
    upAt = clock.monotonicMs()
    if (!mayStart) settleUp(true)
  }
  const tellUnstartable = (error: unknown): void =>
    options.log.error({ slot: child.slot, reason: messageOf(error) }, 'child cannot be started')
  forked.onReport((report) => {
    note(child, report, options.log)
    pulse.hear(report)
    if (report.type === 'started') settleUp(true)
    if (report.type === 'waiting' || report.type === 'counts') options.onNews(report)
    if (report.type === 'ready' && child.state === 'booting') onReady().catch(tellUnstartable)
  })
  void forked.exited.then(() => {
    clearTimeout(bootTimer)
    settleUp(false)
  })
  return child
}

async function untilBeat(
  forked: ReturnType<Fork>,
  pulse: { next(): Promise<void> },
  limit: Promise<void>,
): Promise<void> {
  const beat = pulse.next()
  forked.send({ type: 'tell' })
  await Promise.race([beat, forked.exited, limit])
}

/** What is known of the event loop of a child: it tells, or it is silent. */
function createPulse(clock: Clock) {
  let missed = 0
  let heardAt = clock.monotonicMs()
  let toldMs = 0
  const waiters: (() => void)[] = []
  return {
    hear: (report: Report): void => {
      missed = 0
      heardAt = clock.monotonicMs()
      if (report.type !== 'beat') return
      toldMs = report.loopDelayMs
      for (const resolve of waiters.splice(0)) resolve()
    },
    next: (): Promise<void> => new Promise((resolve) => waiters.push(resolve)),
    miss: (): number => ++missed,
    delayMs: (): number => {
      const silentMs = clock.monotonicMs() - heardAt
      return Math.round(silentMs > silenceMs ? silentMs : toldMs)
    },
  }
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] }

function endSlowBoot(child: Mutable<SupervisedChild>, options: SupervisedChildOptions): void {
  options.log.error(
    { slot: child.slot, pid: child.pid, bootTimeoutMs: options.bootTimeoutMs },
    'child did not become ready in time; killing it',
  )
  child.kill('boot')
}

function note(child: Mutable<SupervisedChild>, report: Report, log: Log): void {
  switch (report.type) {
    case 'ready':
      child.queues = report.queues
      break
    case 'started':
      if (child.state === 'starting' || child.state === 'waiting') child.state = 'up'
      break
    case 'waiting':
      if (child.state === 'starting') child.state = 'waiting'
      break
    case 'beat':
      child.active = report.active
      child.rssBytes = report.rssBytes
      break
    case 'counts':
      // Is news, not state.
      break
    case 'left':
      child.saidGoodbye = true
      break
    case 'failed':
      log.error({ slot: child.slot, code: report.code }, `child cannot start: ${report.message}`)
      break
  }
}
