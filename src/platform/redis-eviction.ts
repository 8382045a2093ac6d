import { withLimit } from '../core/lifecycle.ts'
import { createRedis } from './redis.ts'

/**
 * The `maxmemory-policy` of a Redis. Any other than `noeviction` throws queue entries away when memory is short.
 *
 * Read from INFO, since managed Redis refuses CONFIG.
 * @returns undefined when it does not say
 * @throws when there is no answer within `limitMs`
 */
export async function readEvictionPolicy(url: string, limitMs: number): Promise<string | undefined> {
  const client = createRedis(url, 'consumer')
  client.on('error', () => undefined)
  try {
    const info = await withLimit(client.info('memory'), limitMs)
    return /^maxmemory_policy:(\S+)/m.exec(info)?.[1]
  } finally {
    client.disconnect()
  }
}
