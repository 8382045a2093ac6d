import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Bodies } from '../../domain/bodies/bodies.ts'
import { createAuditLog } from '../../platform/access/audit-log.ts'
import { createAuthenticator } from '../../platform/access/authenticator.ts'
import { createKeyStore } from '../../platform/access/key-store.ts'
import type { AuditLog } from '../../platform/access.ts'
import type { Config } from '../../platform/config/config.ts'
import { createLog, type Log } from '../../platform/log.ts'
import { createNodeHeartbeat, type NodeHeartbeat } from '../../platform/processes/node-heartbeat.ts'
import { createAcceptance } from '../../platform/queues/accept.ts'
import type { Registry } from '../../platform/queues/registry.ts'
import type { SiteWatch } from '../../platform/replication/site-watch.ts'
import { createFailOverRoutes } from '../../runtime/web/routes/fail-over.ts'
import { createWeb, type Web } from '../../runtime/web/web.ts'
import { readVersion } from '../cli.ts'
import { createGround, type Ground } from '../compose.ts'
import { loadJobs } from '../load-jobs.ts'
import { createDashboardPlugin } from './dashboard.ts'
import { assertDatabaseReady, type Database, openDatabase, waitForPostgres } from './database.ts'
import { createFailOverParts } from './fail-over.ts'
import { createPushWeb } from './push.ts'
import { createReplicatedTypes } from './replicated.ts'
import { createGroundSiteWatch } from './site.ts'
import { createSiteBodies } from './site-bodies.ts'
import { createStateWeb } from './state.ts'
import { createSyncWeb } from './sync.ts'
import { openTracing } from './tracing.ts'

export interface ComposedWeb {
  /** Listens, and stands in `nodes`. */
  start(): Promise<{ url: string }>
  /** @returns false when something had to be cut */
  stop(): Promise<boolean>
  /** Whether any API key could be used. */
  hasKeys(): Promise<boolean>
  clock: Clock
  log: Log
}

/** Longest wait for an answer of Postgres, ms: a client should hear 503 long before a router gives up on us. */
const queryTimeoutMs = 5_000
/** Of BullMQ's engine on Postgres; adding entries needs no more. */
const queueConnections = 3
const leaveMs = 1_000
/** Listens of one process; with the memory that each takes, about 500 MB. */
const maxListens = 25_000

/**
 * The web tier, its stores reached and checked.
 *
 * @throws JOBS_UNUSABLE, DATABASE_NOT_MIGRATED, DATABASE_UNAVAILABLE; then nothing is left open
 */
export async function composeWeb(config: Config): Promise<ComposedWeb> {
  const registry = await loadJobs(config.jobsModule)
  const database = await openDatabase(config, createLog({ level: config.logLevel, process: 'web' }))
  const ground = createGround(config, {
    process: 'web',
    databaseUrl: database.url,
    connections: Math.max(2, config.databaseConnections - (config.redisUrl ? 0 : queueConnections)),
    queueConnections,
    queryTimeoutMs,
  })
  try {
    await assertDatabaseReady(config, ground, config.bootTimeoutMs)
    return await assemble(ground, registry, database)
  } catch (error) {
    await ground.releasers.release()
    await database.close()
    throw error
  }
}

async function assemble(ground: Ground, registry: Registry, database: Database): Promise<ComposedWeb> {
  const { config, clock, log, releasers } = ground
  const { keys, acceptance, bodies, authenticator, audit } = createBasics(ground)
  const push = createPushWeb(ground, authenticator, maxListens)
  let stopping = false
  const site = createGroundSiteWatch(ground)
  releasers.add('site', () => site.stop())
  const sync = createSites(ground, { bodies, audit, site })
  const shown = { registry, authenticator, keys, audit, bodies, acceptance, site, ...sync }
  const dashboard = createDashboardPlugin(ground, { ...shown, listens: push.listens })
  const web = await createWeb({
    ...ground,
    host: config.host ?? '0.0.0.0',
    port: config.port,
    shutdownMs: config.shutdownMs - leaveMs,
    metricsOpen: config.metricsOpen,
    authenticator,
    audit,
    registry,
    acceptance,
    bodies,
    site,
    dismiss: () => push.dismiss(),
    tracing: await openTracing(ground, 'web'),
    plugins: [
      push.plugin,
      createStateWeb(ground, { acceptance, registry, audit }),
      ...sync.plugins,
      dashboard,
    ],
    limits: { connections: maxListens + 5_000 },
  })
  // What was committed is handed to the queue before the connections close; the reconciler would need a second.
  releasers.add('acceptance', () => acceptance.idle())
  const heartbeat = createHeartbeat(ground, () => stopping)

  const start = async (): Promise<{ url: string }> => {
    // Between the check of the schema and now its connections may have gone to others.
    const limitMs = config.bootTimeoutMs
    await waitForPostgres(() => heartbeat.start(), { clock, log, limitMs })
    await site.start()
    await push.start()
    return web.start()
  }
  const stop = async (): Promise<boolean> => {
    stopping = true
    void heartbeat.record()
    push.settle()
    const clean = await stopWeb(web, log)
    await push.stop()
    await heartbeat.stop(leaveMs / 2)
    await releasers.release()
    await database.close()
    return clean
  }
  const hasKeys = async (): Promise<boolean> => config.apiKeys.length > 0 || keys.any()
  return { start, stop, hasKeys, clock, log }
}

function createBasics(ground: Ground) {
  const { config, clock, log, postgres, releasers } = ground
  const keys = createKeyStore({ postgres, clock })
  const acceptance = createAcceptance({
    ...ground,
    onError: (error) =>
      log.warn({ reason: messageOf(error) }, 'the queue is away; the reconciler adds what waits'),
  })
  const bodies = createSiteBodies(ground)
  releasers.add('bodies', () => bodies.close())
  const authenticator = createAuthenticator({ keys, clock, environmentKeys: config.apiKeys })
  return { keys, acceptance, bodies, authenticator, audit: createAuditLog({ postgres }) }
}

interface SitesParts {
  bodies: Bodies
  audit: AuditLog
  site: SiteWatch
}

/** Replicas and fail-overs. */
function createSites(ground: Ground, { bodies, audit, site }: SitesParts) {
  const types = createReplicatedTypes(ground, bodies)
  const { failOvers, lookOut } = createFailOverParts(ground, types)
  // Also without a worker a site that has been superseded closes.
  const onSuperseded = (): void => void lookOut.ask()
  const { plugin, replicas } = createSyncWeb(ground, { types, audit, onSuperseded })
  const routes = createFailOverRoutes({ failOvers, refresh: () => site.refresh() })
  return { failOvers, replicas, plugins: [plugin, routes] }
}

const createHeartbeat = ({ postgres, clock, log }: Ground, isStopping: () => boolean): NodeHeartbeat =>
  createNodeHeartbeat({
    postgres,
    node: { id: randomUUID(), kind: 'web', host: hostname(), pid: process.pid, version: readVersion() },
    view: () => ({ state: isStopping() ? 'stopping' : 'up' }),
    clock,
    log,
  })

async function stopWeb(web: Web, log: Log): Promise<boolean> {
  try {
    return await web.stop()
  } catch (error) {
    log.error({ reason: messageOf(error) }, 'the server did not stop properly')
    return false
  }
}
