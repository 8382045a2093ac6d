import { randomBytes } from 'node:crypto'
import type { AuditLog, Authenticator, KeyStore } from '../../platform/access.ts'
import type { Registry } from '../../platform/queues/registry.ts'
import { createDashboard } from '../../runtime/dashboard/dashboard.ts'
import type { Ground } from '../compose.ts'

export interface DashboardParts {
  registry: Registry
  authenticator: Authenticator
  keys: KeyStore
  audit: AuditLog
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
    environmentKeys: config.apiKeys.length > 0,
    jobNames: parts.registry.jobs.map((job) => job.name),
    queues: parts.registry.queues,
  })
}
