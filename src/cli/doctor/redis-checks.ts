import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { withLimit } from '../../core/lifecycle.ts'
import { createRedis, type RedisClient } from '../../platform/redis.ts'
import { readEvictionPolicy } from '../../platform/redis-eviction.ts'
import { clockSkew, type Finding, fault, ok, warning } from './check.ts'

const limitMs = 5_000
const oldestMajor = 6

/** Looks at Redis: reachable, new enough, never evicting, on time. */
export async function checkRedis(url: string, clock: Clock): Promise<Finding[]> {
  const redis = createRedis(url, 'consumer')
  // The command only says that it waited; why the connection failed is said here.
  let lastError = ''
  redis.on('error', (error: Error) => {
    lastError = messageOf(error)
  })
  try {
    const info = await withLimit(redis.info(), limitMs)
    return [checkVersion(info), await checkPolicy(url), await checkClock(redis, clock)]
  } catch (error) {
    const reason = lastError || messageOf(error)
    return [fault('Redis', reason, 'See that it runs, and that REDIS_URL names it (`rediss://` for TLS).')]
  } finally {
    redis.disconnect()
  }
}

const field = (info: string, name: string): string | undefined =>
  new RegExp(`^${name}:(.*)$`, 'm').exec(info)?.[1]?.trim()

function checkVersion(info: string): Finding {
  const version = field(info, 'valkey_version') ?? field(info, 'redis_version') ?? 'unknown'
  return Number.parseInt(version, 10) < oldestMajor
    ? fault('Redis', `version ${version}`, `Use Redis ${oldestMajor} or later, or Valkey.`)
    : ok('Redis', `version ${version}, up for ${field(info, 'uptime_in_seconds') ?? '?'} s`)
}

/** A Redis that evicts forgets entries without a word; the ledger would bring durable ones back, late. */
async function checkPolicy(url: string): Promise<Finding> {
  const policy = await readEvictionPolicy(url, limitMs).catch(() => undefined)
  if (policy === undefined) {
    return warning('Eviction', 'cannot be read', 'See yourself that maxmemory-policy is noeviction.')
  }
  if (policy === 'noeviction') return ok('Eviction', 'maxmemory-policy is noeviction')
  const found = `maxmemory-policy is ${policy}: queue entries may vanish`
  return fault('Eviction', found, 'Set maxmemory-policy to noeviction.')
}

async function checkClock(redis: RedisClient, clock: Clock): Promise<Finding> {
  const asked = clock.now()
  const [seconds = 0, micros = 0] = await withLimit(redis.time(), limitMs)
  return clockSkew("Redis' clock", Number(seconds) * 1_000 + Number(micros) / 1_000, asked, clock.now())
}
