import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { allCloudPushes, sendToAll } from '../support/push-crowd.ts'
import { openPushSite } from '../support/push-site.ts'

// What takes part is taken away while timeouts are pending: every due push is sent within 10 s of its return.

const most = 10_000

/** Longer than anything of a dead worker lives: its heartbeat, its locks, its leases. */
const awayMs = Number(process.env['OUTAGE_MS'] ?? 12_000)
const engines = ['redis', 'postgres'] as const

// Both engines at once, each on stores of its own: most of the time is waited.
test(`all workers are dead for ${awayMs / 1_000} s while 1,000 timeouts fall due`, async () => {
  await Promise.all(
    engines.map(async (engine) => {
      const site = await openPushSite(engine)
      const [web, one, two] = await Promise.all([site.startWeb(), site.startWorker(), site.startWorker()])
      const devices = await site.devices(1_000)
      await sendToAll(web, devices, 3_000)
      await Promise.all([one.kill(), two.kill()])
      await pause(awayMs)
      expect(site.cloud.received).toHaveLength(0)
      await Promise.all([site.startWorker(), site.startWorker()])
      const backAt = performance.now()
      const lastMs = await allCloudPushes(site, devices, backAt)
      console.log(`${engine}: workers back: the last of 1,000 cloud pushes after ${lastMs.toFixed(0)} ms`)
      expect(lastMs).toBeLessThan(most)
      expect(site.cloud.received).toHaveLength(1_000)
    }),
  )
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
  expect(lastMs).toBeLessThan(most)
  await site.redis?.restart()
})

test('Postgres is restarted while 1,000 timeouts fall due', async () => {
  await Promise.all(
    engines.map(async (engine) => {
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
    }),
  )
})
