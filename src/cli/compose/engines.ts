import type { Clock } from '../../core/clock.ts'
import type { Config } from '../../platform/config/config.ts'
import type { QueueBackend } from '../../platform/queues/backend.ts'
import { createPostgresBackend } from '../../platform/queues/backends/postgres.ts'
import { createRedisBackend } from '../../platform/queues/backends/redis.ts'
import type { WakeBus } from '../../platform/wake-bus.ts'

export interface EngineOptions {
  config: Config
  clock: Clock
  /** Of Postgres. */
  url: string
  /** Of the engine on Postgres. */
  connections: number
  onError(error: Error): void
}

/** On Redis when REDIS_URL is set, else on Postgres. */
export function createBackend({ config, url, clock, onError, connections }: EngineOptions): QueueBackend {
  return config.redisUrl
    ? createRedisBackend({ url: config.redisUrl, clock, onError })
    : createPostgresBackend({ url, clock, onError, connections })
}

export function createWakeBus(_options: EngineOptions): WakeBus {
  return {
    publish: async () => undefined,
    subscribe: async () => ({ unsubscribe: async () => undefined }),
    onRestored: () => undefined,
    close: async () => undefined,
  }
}
