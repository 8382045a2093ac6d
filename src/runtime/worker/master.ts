import { type BatonError, messageOf } from '../../core/errors.ts'
import type { Service } from '../../core/lifecycle.ts'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { WaitingReport } from '../../platform/processes/messages.ts'
import type { NodeHeartbeat, NodeState, NodeView } from '../../platform/processes/node-heartbeat.ts'
import { createNodeMeter, encodeNodeMetrics, type NodeMeter } from '../../platform/processes/node-metrics.ts'
import type { ShutdownHooks } from '../../platform/processes/shutdown-hooks.ts'
import type { ExitProcess } from '../../platform/processes/signals.ts'
import { planStop } from '../../platform/processes/stop-plan.ts'
import type { SupervisedChild } from '../../platform/processes/supervised-child.ts'
import {
  createSupervisor,
  type Loss,
  lossOf,
  type Supervisor,
  type SupervisorOptions,
} from '../../platform/processes/supervisor.ts'
import type { SiteWatch } from '../../platform/replication/site-watch.ts'
import type { DeadRunners } from './dead-runner.ts'
import { createDuty, type Duty } from './duty.ts'
import { createStop, endChildren, type Stop, stopIntake } from './stop.ts'

export interface WorkerMasterOptions
  extends Pick<
    SupervisorOptions,
    'slots' | 'fork' | 'bootTimeoutMs' | 'watchdogMs' | 'rollLimits' | 'clock' | 'log'
  > {
  createHeartbeat(view: () => NodeView): NodeHeartbeat
  deadRunners: DeadRunners
  /** Those of the master itself; it shows the sum of its own and its children's in its row. */
  metrics: Pick<Metrics, 'count' | 'take'>
  /** What brings in work: reconciler, schedules. Started when the first child is up, stopped first. New for each duty. */
  createIntake(): Service[]
  /** Whether the site takes work; while it does not, the worker stands by. */
  site: SiteWatch
  /** What runs in standby too: replication. */
  services: Service[]
  hooks: ShutdownHooks
  shutdownMs: number
  /** Ends what the process itself keeps: pools, an embedded server. */
  close(limitMs: number): Promise<void>
  /** Repeats what Postgres does not answer, until the boot timeout: it may go away in the middle of a boot. */
  patiently(work: () => Promise<void>): Promise<void>
  /** Shows a line to whoever sent USR1. */
  print(line: string): void
  exit: ExitProcess
}

/** The master of a worker: what its signals mean. docs/protocols/worker-stop.md is its law. */
export interface WorkerMaster {
  /** Settles debts, writes the row of the node, forks. */
  start(): Promise<void>
  stop(signal: string): void
  fast(): void
  roll(): void
  quiet(): void
  /** Asks the children, and prints what they do; one that does not answer stands as it was last seen. */
  report(): Promise<void>
}

const reportWithinMs = 500

export function createWorkerMaster(options: WorkerMasterOptions): WorkerMaster {
  const { log } = options
  const life = createLife(options)
  const { duty, heartbeat } = life
  let stop: Stop | undefined

  return {
    start: () => start(options, life),
    stop: (signal) => {
      if (life.ended) return
      life.ended = true
      duty.leave()
      life.show('stopping')
      stop = createStopOf(options, life)
      stop.begin(signal)
    },
    fast: () => stop?.fast(),
    roll: () => {
      if (!life.ended && duty.isOn) void life.team.supervisor.roll()
      else log.info('there are no children to roll')
    },
    quiet: () => {
      if (life.ended) return
      log.info('quiet: nothing new is taken')
      life.isQuiet = true
      life.team.supervisor.quiet()
      if (duty.isOn) life.show('quiet')
      else void heartbeat.record()
    },
    report: async () => {
      await refreshAll(life.team.supervisor)
      options.print([...describe(life.state, life.team.supervisor)].join('\n'))
    },
  }
}

/** What a master knows of itself; the functions below change it. */
interface Life {
  state: NodeState
  ended: boolean
  isQuiet: boolean
  /** That of now, or the next one. */
  team: Team
  heartbeat: NodeHeartbeat
  duty: Duty
  show(state: NodeState): void
}

function createLife(options: WorkerMasterOptions): Life {
  const { log } = options
  const meter = createNodeMeter(options.metrics)
  const heartbeat = options.createHeartbeat(() => fullView(life.state, life.team.supervisor, meter))
  const onFirstUp = (): void => {
    if (life.isQuiet) return
    startAll(life.team.intake, log)
    life.show('up')
  }
  const onHopeless = (error: BatonError): void => {
    if (life.ended) return
    life.ended = true
    life.duty.leave()
    log.fatal({ code: error.code }, error.message)
    void createStopOf(options, life).giveUp()
  }
  const nextTeam = (): Team => createTeam(options, { heartbeat, meter, onFirstUp, onHopeless })
  const life: Life = {
    state: 'starting',
    ended: false,
    isQuiet: false,
    team: nextTeam(),
    heartbeat,
    duty: createDuty({
      begin: () => begin(life, log),
      end: async (leave) => {
        life.show('stopping')
        await standDown(options, life.team, leave)
        if (leave.aborted) return
        life.team = nextTeam()
        life.show('standby')
      },
      log,
    }),
    show: (state) => {
      life.state = state
      void heartbeat.record()
    },
  }
  return life
}

const createStopOf = (options: WorkerMasterOptions, { team, heartbeat }: Life): Stop =>
  createStop({
    ...options,
    supervisor: team.supervisor,
    heartbeat,
    intake: [...team.intake, ...options.services, options.site],
  })

async function start(options: WorkerMasterOptions, life: Life): Promise<void> {
  const { site, services, hooks, patiently, log } = options
  const { duty, heartbeat } = life
  await patiently(() => hooks.settle())
  await patiently(async () => void (await site.refresh()))
  if (life.ended) return
  if (!isOpen(site)) life.state = 'standby'
  await patiently(() => heartbeat.start())
  if (life.ended) return
  site.onChange(() => duty.turn(isOpen(site)))
  startAll([site, ...services], log)
  if (life.state === 'standby') log.info({ ...site.state }, 'the site takes no work: standing by')
  duty.turn(isOpen(site))
}

function begin(life: Life, log: Log): void {
  const { supervisor } = life.team
  if (life.state === 'standby') log.info('the site takes work: the children are forked')
  life.show(life.isQuiet ? 'quiet' : 'starting')
  if (life.isQuiet) supervisor.quiet()
  supervisor.start()
}

const isOpen = (site: SiteWatch): boolean => site.state === undefined || site.state.intake === 'open'

/** The children of one time in which the site takes work, and what brings work in meanwhile. */
interface Team {
  supervisor: Supervisor
  intake: Service[]
}

interface TeamParts {
  heartbeat: NodeHeartbeat
  meter: NodeMeter
  onFirstUp(): void
  onHopeless(error: BatonError): void
}

/** Forks nothing yet. */
function createTeam(
  options: WorkerMasterOptions,
  { heartbeat, meter, onFirstUp, onHopeless }: TeamParts,
): Team {
  const waits = createWaits(options.log)
  let isUp = false
  const supervisor = createSupervisor({
    ...options,
    record: () => heartbeat.record(),
    onNews: (news) => {
      if (news.type === 'counts') return meter.add(news.increments)
      void heartbeat.record()
      waits.begin(news)
    },
    onUp: () => {
      waits.end()
      void heartbeat.record()
      if (isUp) return
      isUp = true
      onFirstUp()
    },
    onDeath: (child, exit) => giveBack(child, lossOf(child, exit), { ...options, heartbeat }),
    onHopeless,
  })
  return { supervisor, intake: options.createIntake() }
}

/** The phases 0 to 3 of a stop, without its end. A stop that comes meanwhile goes on with the children. */
async function standDown(
  { shutdownMs, clock, log }: WorkerMasterOptions,
  { supervisor, intake }: Team,
  leave: AbortSignal,
): Promise<void> {
  log.info({ shutdownMs }, 'the site takes no more work: the children finish what they have')
  const plan = planStop(shutdownMs)
  const beganAt = clock.monotonicMs()
  const until = (ms: number): number => Math.max(0, beganAt + ms - clock.monotonicMs())
  const stopped = stopIntake(intake, log)
  await endChildren(
    { supervisor, clock, log },
    {
      cause: 'the site takes no more work',
      toInterruptMs: () => until(plan.interruptMs),
      toKillMs: () => until(plan.killMs),
      hurry: leave,
      leave,
    },
  )
  if (leave.aborted) return
  await Promise.race([Promise.all([supervisor.gone(), stopped]), clock.sleep(until(plan.exitMs), leave)])
  log.info({ tookMs: Math.round(clock.monotonicMs() - beganAt) }, 'standing by')
}

/** What a dead child held goes back, as its loss says. */
async function giveBack(
  { runner, queues }: SupervisedChild,
  loss: Loss,
  { heartbeat, deadRunners, metrics }: { heartbeat: NodeHeartbeat } & WorkerMasterOptions,
): Promise<void> {
  if (loss !== 'none') metrics.count('baton_worker_deaths_total', { loss })
  // As long as the runner stands in the row it is alive to others, and nobody counts a crash.
  if (loss === 'interruption') await deadRunners.release(runner, queues, loss)
  void heartbeat.record()
  if (loss === 'crash') await deadRunners.release(runner, queues, loss)
}

/** One line for a wait that every child tells of. */
function createWaits(log: Log) {
  let isTold = false
  return {
    begin: (wait: WaitingReport): void => {
      if (isTold) return
      isTold = true
      log.warn({ reason: wait.reason }, `waiting for ${wait.for}: no job runs here before it answers`)
    },
    end: (): void => {
      isTold = false
    },
  }
}

function fullView(state: NodeState, supervisor: Supervisor, meter: NodeMeter): NodeView {
  const crashLoops = supervisor.waiting().filter(({ forkInMs }) => forkInMs > 0).length
  const metrics = encodeNodeMetrics({ totals: meter.totals(), crashLoops })
  return { ...viewOf(state, supervisor.children()), metrics }
}

function startAll(services: Service[], log: Log): void {
  for (const service of services) {
    service.start().catch((error: unknown) => log.error({ reason: messageOf(error) }, 'intake did not start'))
  }
}

function viewOf(state: NodeState, children: SupervisedChild[]): NodeView {
  const some = (wanted: SupervisedChild['state']): boolean => children.some((child) => child.state === wanted)
  const waits = (state === 'starting' || state === 'up') && some('waiting') && !some('up')
  return {
    state: waits ? 'waiting' : state,
    runners: children.map((child) => child.runner),
    children: children.map((child) => ({
      runner: child.runner,
      slot: child.slot,
      pid: child.pid,
      state: child.state,
      active: child.active.length,
      rssBytes: child.rssBytes,
      loopDelayMs: child.loopDelayMs(),
    })),
  }
}

/** What the last beats told is up to a second old: a job that began since would be missing. */
async function refreshAll(supervisor: Supervisor): Promise<void> {
  await Promise.all(supervisor.children().map((child) => child.refresh(reportWithinMs)))
}

/** What every child is doing, a line each. Ids and names only, no payloads. */
function* describe(given: NodeState, supervisor: Supervisor): Generator<string> {
  const children = supervisor.children()
  const { state } = viewOf(given, children)
  yield `worker is ${state}, ${children.length} children`
  for (const child of children) {
    const up = child.upForMs()
    const since = up === undefined ? 'not up yet' : `up for ${seconds(up)}`
    yield `  child ${child.slot} (pid ${child.pid}) ${child.state}, ${since}, ${Math.round(child.rssBytes / 1e6)} MB, ${child.active.length} jobs`
    for (const job of child.active) yield `    ${job.name} ${job.id} for ${seconds(job.forMs)}`
  }
  for (const { slot, failures, forkInMs } of supervisor.waiting()) {
    yield `  child ${slot} died early ${failures} times in a row, next fork in ${seconds(forkInMs)}`
  }
}

const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`
