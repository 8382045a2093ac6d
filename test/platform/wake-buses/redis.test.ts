import { createSystemClock } from '../../../src/core/clock.ts'
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
