import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Config } from '../../platform/config/config.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { BullmqBackend } from '../../platform/queues/backends/bullmq.ts'
import { createPostgresBackend } from '../../platform/queues/backends/postgres.ts'
import { createRedisBackend } from '../../platform/queues/backends/redis.ts'
import type { WakeBus } from '../../platform/wake-bus.ts'
import { createPostgresWakeBus } from '../../platform/wake-buses/postgres.ts'
import { createRedisWakeBus } from '../../platform/wake-buses/redis.ts'

export interface EngineOptions {
  config: Config
  clock: Clock
  /** Of Postgres. */
  url: string
  /** Of the engine on Postgres. */
  connections: number
  onError(error: Error): void
}

export interface WakeBusOptions extends Pick<EngineOptions, 'config' | 'clock' | 'onError'> {
  postgres: Postgres
}

/** On Redis when REDIS_URL is set, else on Postgres. */
export function createBackend({ config, url, clock, onError, connections }: EngineOptions): BullmqBackend {
  return config.redisUrl
    ? createRedisBackend({ url: config.redisUrl, clock, onError })
    : createPostgresBackend({ url, clock, onError, connections })
}

/** Redis pub/sub when REDIS_URL is set, else LISTEN and NOTIFY. */
export function createWakeBus({ config, postgres, clock, onError }: WakeBusOptions): WakeBus {
  const onTrouble = (error: unknown): void =>
    onError(error instanceof Error ? error : new Error(messageOf(error)))
  return config.redisUrl
    ? createRedisWakeBus({ url: config.redisUrl, clock, onError: onTrouble })
    : createPostgresWakeBus({ postgres, clock, onError: onTrouble })
}
