import { expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { withLimit } from '../../../src/core/lifecycle.ts'
import { createRedisWakeBus } from '../../../src/platform/wake-buses/redis.ts'
import { exerciseWakeBus } from '../../contracts/wake-bus.ts'
import { startRedis } from '../../support/servers.ts'

const clock = createSystemClock()

exerciseWakeBus('Redis', async () => {
  const server = await startRedis()
  return {
    open: () => createRedisWakeBus({ url: server.url, clock, onError: () => undefined }),
    interrupt: async () => {
      await server.kill()
      await server.restart()
    },
  }
})

it('lets go of a subscription while Redis is away or hangs, so that no stop waits for it', async () => {
  const server = await startRedis()
  const bus = createRedisWakeBus({ url: server.url, clock, onError: () => undefined })
  const first = await bus.subscribe('a', () => undefined)
  const second = await bus.subscribe('b', () => undefined)
  await server.freeze(true)
  await expect(withLimit(first.unsubscribe(), 1_000)).resolves.toBeUndefined()
  await server.kill()
  await expect(withLimit(second.unsubscribe(), 1_000)).resolves.toBeUndefined()
  await bus.close()
})
