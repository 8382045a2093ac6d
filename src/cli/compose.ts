import { type Clock, createSystemClock } from '../core/clock.ts'
import { createReleasers, type Releasers } from '../core/lifecycle.ts'
import type { Config } from '../platform/config/config.ts'
import { createLog, type Log } from '../platform/log.ts'
import { createMetrics, type Metrics } from '../platform/metrics.ts'
import { createPostgres, type Postgres } from '../platform/postgres/postgres.ts'
import type { BullmqBackend } from '../platform/queues/backends/bullmq.ts'
import type { Ledger } from '../platform/queues/ledger.ts'
import { createLedger } from '../platform/queues/ledger-postgres.ts'
import type { PayloadStore } from '../platform/queues/payload-store.ts'
import { createTroubleLog } from '../platform/trouble-log.ts'
import type { WakeBus } from '../platform/wake-bus.ts'
import { createBackend, createWakeBus } from './compose/engines.ts'
import { createPayloads } from './compose/payloads.ts'

/** What every process stands on. Made here and in compose/, nowhere else. */
export interface Ground {
  config: Config
  clock: Clock
  log: Log
  metrics: Metrics
  postgres: Postgres
  ledger: Ledger
  backend: BullmqBackend
  wakeBus: WakeBus
  payloads: PayloadStore
  /** Closes what was opened, last first. */
  releasers: Releasers
}

export interface GroundOptions {
  /** In log lines and in pg_stat_activity. */
  process: 'web' | 'worker' | 'child' | 'command'
  /** Fields of every log line. */
  fields?: Record<string, string | number>
  databaseUrl: string
  /** Connections of the process's own pool. */
  connections: number
  /** Connections of BullMQ's engine on Postgres; without meaning on Redis. */
  queueConnections: number
  /** Longest wait for an answer of Postgres, ms. */
  queryTimeoutMs: number
}

/** Opens nothing yet that could fail: pools and clients connect when they are used. */
export function createGround(config: Config, options: GroundOptions): Ground {
  const clock = createSystemClock()
  const log = createLog({ level: config.logLevel, process: options.process }).child(options.fields ?? {})
  const releasers = createReleasers((message) => log.warn(message), 2_000)
  const troubles = createTroubleLog(log, clock)
  const onError = (error: Error): void => troubles.tell('a connection has trouble', error)
  const postgres = createPostgres({
    url: options.databaseUrl,
    max: options.connections,
    applicationName: `baton ${options.process}`,
    queryTimeoutMs: options.queryTimeoutMs,
    onError,
  })
  releasers.add('postgres', () => postgres.close())
  const engine = { config, clock, onError, url: options.databaseUrl, connections: options.queueConnections }
  const backend = createBackend(engine)
  releasers.add('queue backend', () => backend.close())
  const wakeBus = createWakeBus({ config, postgres, clock, onError })
  releasers.add('wake bus', () => wakeBus.close())
  const ledger = createLedger({ postgres, clock })
  const metrics = createMetrics()
  const parts = { config, clock, log, metrics, postgres, ledger, backend, wakeBus, releasers }
  return { ...parts, payloads: createPayloads(parts) }
}
