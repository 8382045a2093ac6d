import type { Clock } from '../../core/clock.ts'
import { type Bodies, createBodies } from '../../domain/bodies/bodies.ts'
import { createBodyStores } from '../../domain/bodies/create-body-store.ts'
import type { Config } from '../../platform/config/config.ts'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'

export interface SiteBodiesParts {
  config: Config
  postgres: Postgres
  clock: Clock
  log: Log
  metrics?: Metrics
  /** Longest wait for one answer of a store, ms; 30 s unless said. */
  timeoutMs?: number
}

/**
 * Bodies in the stores that are configured. Opens nothing yet.
 *
 * @throws BODY_STORE_INVALID
 */
export function createSiteBodies({ config, ...parts }: SiteBodiesParts): Bodies {
  const { bodyStores, bodyRetentionMs: retentionMs, spoolFolder } = config
  const stores = createBodyStores(bodyStores, parts.clock, { ...parts, spoolFolder })
  return createBodies({ ...parts, stores, retentionMs, spoolFolder })
}
