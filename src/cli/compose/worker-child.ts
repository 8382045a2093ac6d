import type { Clock } from '../../core/clock.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { PushWorker } from '../../domain/push/push-worker.ts'
import type { Config } from '../../platform/config/config.ts'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { ChildIdentity } from '../../platform/processes/child.ts'
import { divideGrace, planStop } from '../../platform/processes/stop-plan.ts'
import { startWatchdog } from '../../platform/processes/watchdog.ts'
import { createJobMetrics } from '../../platform/queues/job-metrics.ts'
import { createJobRunner, type JobRunner } from '../../platform/queues/job-runner.ts'
import type { Workload } from '../../runtime/worker/child.ts'
import { createGround } from '../compose.ts'
import { CONFIG_DATABASE_MISSING } from '../errors.ts'
import { chooseQueues, loadJobs } from '../load-jobs.ts'
import { createDeps } from './deps.ts'
import { createPushSending } from './push.ts'
import { openTracing } from './tracing.ts'

export interface ComposedChild {
  workload: Workload
  metrics: Metrics
  clock: Clock
  log: Log
}

/** An engine that is away is waited for; a child that gave up would only be forked again, to wait. */
const patienceMs = 86_400_000

/** A child of the worker: runs jobs under the runner that its master gave it. */
export async function composeWorkerChild(config: Config, identity: ChildIdentity): Promise<ComposedChild> {
  // The master has made sure, and passes on the one that it started itself.
  if (!config.databaseUrl) throw CONFIG_DATABASE_MISSING()
  const registry = await loadJobs(config.jobsModule)
  const queues = chooseQueues(registry, config.workerQueues)
  // A consumer keeps a connection to itself, that of the alarms of pushes too, and all of them share two more.
  const queueConnections = config.redisUrl ? 0 : queues.length + 3
  const ground = createGround(config, {
    process: 'child',
    fields: { slot: identity.slot, runner: identity.runner },
    databaseUrl: config.databaseUrl,
    connections: Math.max(2, config.databaseConnections - queueConnections),
    queueConnections,
    queryTimeoutMs: 65_000,
  })
  const { watchdogMs, logLevel } = config
  startWatchdog({ watchdogMs, logLevel, identity: { slot: identity.slot, runner: identity.runner } })
  const plan = planStop(config.shutdownMs)
  const tracing = await openTracing(ground, 'worker')
  const runner = createJobRunner({
    ...ground,
    tracing,
    registry,
    database: ground.postgres,
    deps: createDeps(ground, registry),
    metrics: createJobMetrics(ground.metrics),
    runner: identity.runner,
    concurrency: config.workerConcurrency,
    queues,
    limits: { handBackMs: divideGrace(plan.killMs - plan.interruptMs).handBackMs, startMs: patienceMs },
  })
  const push = createPushSending({ ...ground, tracing }, identity.runner, plan.killMs)
  const { metrics, clock, log } = ground
  return { workload: asWorkload({ runner, push }, queues, ground), metrics, clock, log }
}

function asWorkload(
  { runner, push }: { runner: JobRunner; push: PushWorker },
  queues: string[],
  { backend, clock, releasers }: Pick<ReturnType<typeof createGround>, 'backend' | 'clock' | 'releasers'>,
): Workload {
  return {
    queues,
    engine: {
      name: backend.engine === 'redis' ? 'Redis' : 'Postgres',
      ping: (limitMs) => backend.ping(limitMs),
    },
    start: async () => {
      await Promise.all([runner.start(), push.start()])
    },
    quiet: () => {
      runner.quiet()
      push.quiet()
    },
    drain: async () => {
      await Promise.all([runner.drain(), push.drain()])
    },
    interrupt: (reason, graceMs) => {
      // What is on its way to a provider is left: its lease runs out, and others send it with the same id.
      push.quiet()
      return runner.interrupt(reason, graceMs)
    },
    active: () =>
      runner.active().map(({ id, name, startedAt }) => ({ id, name, forMs: clock.now() - startedAt })),
    busy: () => push.inFlight > 0 || runner.active().some((job) => job.phase !== 'left-behind'),
    close: async (limitMs) => {
      await Promise.all([runner.close(limitMs), withLimit(push.stop(), limitMs).catch(() => undefined)])
      await releasers.release()
    },
  }
}
