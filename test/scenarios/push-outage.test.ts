import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { createRedis } from '../../src/platform/redis.ts'
import { eventually } from '../support/processes.ts'
import { openPushSite, type PushSite, type WebNode } from '../support/push-site.ts'

// What takes part is taken away while timeouts are pending: every due push is sent within 10 s of its return.

const most = 10_000

const sendToAll = async (web: WebNode, devices: string[], confirmMs: number): Promise<void> => {
  for (let from = 0; from < devices.length; from += 1_000) {
    const body = devices.slice(from, from + 1_000).map((device) => ({ to: { device }, confirmMs }))
    expect((await web.call('POST', '/v1/pushes', { body })).status).toBe(202)
  }
}

/** How long after `sinceMs` the last of them came, and whether each device got its own. */
async function allCloudPushes(site: PushSite, devices: string[], sinceMs: number): Promise<number> {
  const reached = (): Set<string> => new Set(site.cloud.received.map((each) => each.path))
  await eventually(() => expect(reached().size).toBe(devices.length), { timeoutMs: 40_000, everyMs: 50 })
  const firsts = new Map<string, number>()
  for (const { path, at } of site.cloud.received) if (!firsts.has(path)) firsts.set(path, at)
  const lastMs = Math.max(...firsts.values()) - sinceMs
  await eventually(
    async () => {
      const states = await site.query(`SELECT state, count(*)::int AS n FROM pushes GROUP BY state`)
      expect(states).toEqual([{ state: 'sent', n: devices.length }])
    },
    { timeoutMs: 10_000 },
  )
  return lastMs
}

test.each(['redis', 'postgres'] as const)(
  'all workers are dead for 20 s while 1,000 timeouts fall due: %s',
  async (engine) => {
    const site = await openPushSite(engine)
    const [web, one, two] = await Promise.all([site.startWeb(), site.startWorker(), site.startWorker()])
    const devices = await site.devices(1_000)
    await sendToAll(web, devices, 3_000)
    await Promise.all([one.kill(), two.kill()])
    await pause(20_000)
    expect(site.cloud.received).toHaveLength(0)
    await Promise.all([site.startWorker(), site.startWorker()])
    const backAt = performance.now()
    const lastMs = await allCloudPushes(site, devices, backAt)
    console.log(`${engine}: workers back: the last of 1,000 cloud pushes after ${lastMs.toFixed(0)} ms`)
    expect(lastMs).toBeLessThan(most)
    expect(site.cloud.received).toHaveLength(1_000)
  },
)

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
  expect(lastMs).toBeLessThan(most)
  expect(site.cloud.received).toHaveLength(5_000)
})

test('Redis is away for 8 s while timeouts fall due and pushes are accepted', async () => {
  const site = await openPushSite('redis')
  const [web] = await Promise.all([site.startWeb(), site.startWorker()])
  const devices = await site.devices(400)
  await sendToAll(web, devices.slice(0, 200), 3_000)
  await site.redis?.kill()
  await sendToAll(web, devices.slice(200), 3_000)
  const dueAt = performance.now() + 3_000
  const lastMs = await allCloudPushes(site, devices, dueAt)
  console.log(`Redis away: the last of 400 cloud pushes ${lastMs.toFixed(0)} ms after it was due`)
  expect(lastMs).toBeLessThan(5_000)
  await site.redis?.restart()
})

test.each(['redis', 'postgres'] as const)(
  'Postgres is restarted while 1,000 timeouts fall due: %s',
  async (engine) => {
    const site = await openPushSite(engine)
    const [web] = await Promise.all([site.startWeb(), site.startWorker(), site.startWorker()])
    const devices = await site.devices(1_000)
    await sendToAll(web, devices, 2_000)
    await pause(2_050)
    await site.postgresServer.kill()
    await pause(2_000)
    await site.postgresServer.restart()
    const backAt = performance.now()
    const lastMs = await allCloudPushes(site, devices, backAt)
    const twice = site.cloud.received.length - 1_000
    console.log(
      `${engine}: Postgres back: the last of 1,000 cloud pushes after ${lastMs.toFixed(0)} ms, ${twice} of them twice`,
    )
    expect(lastMs).toBeLessThan(most)
    // Whatever came twice came with the same identity.
    expect(new Set(site.cloud.received.map((each) => each.headers['webhook-id'])).size).toBe(1_000)
  },
)
