import { expect, test } from 'vitest'
import { createRedis } from '../../src/platform/redis.ts'
import { allCloudPushes, sendToAll } from '../support/push-crowd.ts'
import { openPushSite } from '../support/push-site.ts'

test('Redis is emptied with 5,000 timeouts pending', async () => {
  const site = await openPushSite('redis')
  const [web] = await Promise.all([site.startWeb(), site.startWorker(), site.startWorker()])
  const devices = await site.devices(5_000)
  const acceptedAt = performance.now()
  await sendToAll(web, devices, 6_000)
  const redis = createRedis(site.redis?.url ?? '', 'consumer')
  await redis.flushall()
  redis.disconnect()
  const lastDueAt = performance.now() + 6_000
  const lastMs = await allCloudPushes(site, devices, lastDueAt)
  console.log(`Redis emptied: the last of 5,000 cloud pushes ${lastMs.toFixed(0)} ms after it was due`)
  expect(Math.min(...site.cloud.received.map((each) => each.at)) - acceptedAt).toBeGreaterThanOrEqual(6_000)
  expect(lastMs).toBeLessThan(10_000)
  expect(site.cloud.received).toHaveLength(5_000)
})
