import { randomBytes } from 'node:crypto'
import type { Bodies } from '../../domain/bodies/bodies.ts'
import { createPushes } from '../../domain/push/delivery-log.ts'
import { createPushInspection } from '../../domain/push/inspection.ts'
import { createStateAdministration } from '../../domain/state/administration.ts'
import type { FailOvers } from '../../domain/sync/fail-over/fail-overs.ts'
import type { Replicas } from '../../domain/sync/replicas.ts'
import type { AuditLog, Authenticator, KeyStore } from '../../platform/access.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { Acceptance } from '../../platform/queues/accept.ts'
import { readLatestRuns } from '../../platform/queues/latest-runs.ts'
import type { Registry } from '../../platform/queues/registry.ts'
import type { SiteWatch } from '../../platform/replication/site-watch.ts'
import { createDashboard } from '../../runtime/dashboard/dashboard.ts'
import type { DashboardPage } from '../../runtime/dashboard/page.ts'
import { createBodiesPage, upkeepJobs } from '../../runtime/dashboard/pages/bodies.ts'
import { createDevicesPage } from '../../runtime/dashboard/pages/devices.ts'
import { createPushPage } from '../../runtime/dashboard/pages/push.ts'
import { createPushesPage } from '../../runtime/dashboard/pages/pushes.ts'
import { createReplicasPage } from '../../runtime/dashboard/pages/replicas.ts'
import { createStatesPage } from '../../runtime/dashboard/pages/states.ts'
import type { Ground } from '../compose.ts'
import { connectState, createEnqueueMigration } from './state.ts'

export interface DashboardParts {
  registry: Registry
  authenticator: Authenticator
  keys: KeyStore
  audit: AuditLog
  /** How many listens this process holds. */
  listens(): number
  bodies: Pick<Bodies, 'upkeep'>
  acceptance: Pick<Acceptance, 'accept'>
  site: Pick<SiteWatch, 'state'>
  replicas: Replicas
  failOvers: FailOvers
}

/** `/dashboard`, for the web tier's server. */
export function createDashboardPlugin(
  ground: Ground,
  parts: DashboardParts,
): ReturnType<typeof createDashboard> {
  const { config } = ground
  return createDashboard({
    ...ground,
    ...parts,
    // Without a secret a log-in ends with this process; production demands one.
    secret: config.secret ?? randomBytes(32).toString('hex'),
    site: config.site ?? 'main',
    siteWatch: parts.site,
    environmentKeys: config.apiKeys.length > 0,
    jobNames: parts.registry.jobs.map((job) => job.name),
    queues: parts.registry.queues,
    pages: [
      ...pushPages(ground, parts),
      statesPage(ground, parts),
      bodiesPage(ground, parts),
      createReplicasPage(parts),
    ],
  })
}

function pushPages({ postgres, clock, config }: Ground, { audit, listens }: DashboardParts): DashboardPage[] {
  const inspection = createPushInspection(postgres)
  const flood = { intervalMs: config.floodIntervalMs, burst: config.floodBurst }
  return [
    createPushesPage({ clock, inspection, listens }),
    createPushPage({ inspection, pushes: createPushes(postgres), audit }),
    createDevicesPage({ inspection, flood }),
  ]
}

/** On the web tier's connections, whose waits are short: what it looks at and asks for are rows. */
function statesPage(ground: Ground, { audit, acceptance, registry }: DashboardParts): DashboardPage {
  const { postgres: database, clock, log } = ground
  const connect = (url: string): Postgres => connectState(url, log)
  const states = createStateAdministration({ database, clock, log, connect })
  const enqueue = createEnqueueMigration(acceptance, registry)
  return createStatesPage({ states, enqueue: (id) => enqueue(id, 1), audit })
}

function bodiesPage(
  { postgres, ledger, clock }: Ground,
  { bodies: { upkeep }, acceptance, registry, audit }: DashboardParts,
): DashboardPage {
  return createBodiesPage({
    clock,
    upkeep,
    audit,
    runs: () => readLatestRuns({ postgres, ledger, names: upkeepJobs }),
    begin: async (name) => {
      const [accepted] = await acceptance.accept([{ job: registry.get(name), payload: {} }])
      return accepted?.duplicate === false
    },
  })
}
