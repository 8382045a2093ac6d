import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { messageOf } from '../../core/errors.ts'
import type { Service } from '../../core/lifecycle.ts'
import { type Config, childEnvironment } from '../../platform/config/config.ts'
import { createLog, type Log } from '../../platform/log.ts'
import { createPostgres } from '../../platform/postgres/postgres.ts'
import { createFork } from '../../platform/processes/child.ts'
import { createNodeHeartbeat } from '../../platform/processes/node-heartbeat.ts'
import { createShutdownDebts } from '../../platform/processes/shutdown-debts.ts'
import { createShutdownHooks, type ShutdownHook } from '../../platform/processes/shutdown-hooks.ts'
import { exitProcess } from '../../platform/processes/signals.ts'
import { createLedger } from '../../platform/queues/ledger-postgres.ts'
import { readEvictionPolicy } from '../../platform/redis-eviction.ts'
import { createTroubleLog } from '../../platform/trouble-log.ts'
import { createDeadRunners } from '../../runtime/worker/dead-runner.ts'
import { createWorkerMaster, type WorkerMaster } from '../../runtime/worker/master.ts'
import { readVersion } from '../cli.ts'
import { createGround, type Ground } from '../compose.ts'
import { chooseQueues, loadJobs } from '../load-jobs.ts'
import { assertDatabaseReady, openDatabase, stateFolder, waitForPostgres } from './database.ts'
import { createFailOverParts } from './fail-over.ts'
import { createIntake } from './intake.ts'
import { createReplicatedTypes } from './replicated.ts'
import { createGroundSiteWatch } from './site.ts'
import { createSiteBodies } from './site-bodies.ts'
import { createSyncService } from './sync.ts'

export interface ComposedMaster {
  master: WorkerMaster
  log: Log
}

/** For reconciler and schedules. */
const connections = 4
const queryTimeoutMs = 30_000
/** Between two steps of a fail-over. */
const failOverStepMs = 100
/** For heartbeats, debts and hand-backs: few short statements that must not wait behind others. */
const pulse = { max: 3, maxWaitMs: 3_000, queryTimeoutMs: 3_000 }

/**
 * The master of a worker, its stores reached and checked.
 *
 * @throws JOBS_UNUSABLE, DATABASE_NOT_MIGRATED, DATABASE_UNAVAILABLE; then nothing is left open
 */
export async function composeMaster(config: Config, print: (line: string) => void): Promise<ComposedMaster> {
  // Before anything is opened: every child would fail in the same way, one after the other, for ever.
  const registry = await loadJobs(config.jobsModule)
  chooseQueues(registry, config.workerQueues)
  const log = createLog({ level: config.logLevel, process: 'worker' })
  const database = await openDatabase(config, log)
  const ground = createGround(config, {
    process: 'worker',
    databaseUrl: database.url,
    connections,
    queueConnections: 3,
    queryTimeoutMs,
  })
  const close = async (): Promise<void> => {
    await ground.releasers.release()
    await database.close()
  }
  try {
    await assertDatabaseReady(config, ground, config.bootTimeoutMs)
  } catch (error) {
    await close()
    throw error
  }
  if (config.redisUrl) void warnOfEviction(config.redisUrl, log)
  const makeIntake = (): Service[] => createIntake(ground, registry)
  const services = [createSync(ground)]
  return {
    master: createMaster({
      ground,
      createIntake: makeIntake,
      services,
      close,
      print,
      databaseUrl: database.url,
    }),
    log,
  }
}

/** What replicates, and what brings fail-overs on, in whichever process holds the lease. */
function createSync(ground: Ground): Service {
  const bodies = createSiteBodies(ground)
  ground.releasers.add('bodies', () => bodies.close())
  const types = createReplicatedTypes(ground, bodies)
  const { lookOut } = createFailOverParts(ground, types)
  return createSyncService(ground, types, {
    onSuperseded: () => lookOut.ask(),
    alongside: [{ everyMs: failOverStepMs, step: () => lookOut.step() }],
  })
}

interface Parts {
  ground: Ground
  createIntake(): Service[]
  services: Service[]
  close(): Promise<void>
  print(line: string): void
  databaseUrl: string
}

function createMaster({
  ground,
  createIntake: makeIntake,
  services,
  close,
  print,
  databaseUrl,
}: Parts): WorkerMaster {
  const { config, clock, log, backend } = ground
  const id = randomUUID()
  const troubles = createTroubleLog(log, clock)
  const postgres = createPostgres({
    ...pulse,
    url: databaseUrl,
    applicationName: 'baton worker pulse',
    onError: (error) => troubles.tell('the connection of the heartbeat has trouble', error),
  })
  ground.releasers.add('pulse', () => postgres.close())
  const ledger = createLedger({ postgres, clock })
  const debts = createShutdownDebts({
    postgres,
    node: id,
    folder: path.join(stateFolder(), 'shutdown-debts'),
    log,
  })
  return createWorkerMaster({
    slots: config.workerProcesses,
    fork: createFork(
      fileURLToPath(new URL('../../main.ts', import.meta.url)),
      ['worker-child'],
      childEnvironment({ DATABASE_URL: databaseUrl }),
    ),
    bootTimeoutMs: config.bootTimeoutMs,
    watchdogMs: config.watchdogMs,
    rollLimits: { patienceMs: 600_000, deadlineMs: 3_600_000, graceMs: 5_000, nextSlotMs: config.shutdownMs },
    createHeartbeat: (view) =>
      createNodeHeartbeat({
        postgres,
        node: { id, kind: 'worker', host: hostname(), pid: process.pid, version: readVersion() },
        view,
        clock,
        log,
      }),
    metrics: ground.metrics,
    deadRunners: createDeadRunners({ ledger, backend, clock, log }),
    createIntake: makeIntake,
    // On the connections of the heartbeat: neither may wait behind work.
    site: createGroundSiteWatch({ postgres, clock, log }),
    services,
    hooks: createShutdownHooks({ hooks: shutdownHooks(), debts, clock, log }),
    shutdownMs: config.shutdownMs,
    close,
    patiently: (work) => waitForPostgres(work, { clock, log, limitMs: config.bootTimeoutMs }),
    print,
    exit: exitProcess,
    clock,
    log,
  })
}

/** In the order in which they run at a stop. Domains that keep something in memory flush it here. */
const shutdownHooks = (): ShutdownHook[] => []

async function warnOfEviction(redisUrl: string, log: Log): Promise<void> {
  try {
    const policy = await readEvictionPolicy(redisUrl, 5_000)
    if (policy === undefined || policy === 'noeviction') return
    log.warn(
      { policy },
      `Redis has maxmemory-policy ${policy}: when its memory is full it throws queue entries away. Durable jobs are added again, work with durable: false is lost. Set it to noeviction.`,
    )
  } catch (error) {
    log.warn({ reason: messageOf(error) }, 'Redis does not tell its maxmemory-policy')
  }
}
