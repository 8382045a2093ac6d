import { afterAll, beforeAll, expect, test } from 'vitest'
import { migrate } from '../../src/platform/postgres/migrate.ts'
import { eventually } from '../support/processes.ts'
import { type PrivateServer, startPostgres } from '../support/servers.ts'
import { longestStopMs, openSite, type Site } from '../support/workers.ts'

const shutdownMs = 2_500

/** What a store can do to a stop: not be there, or be there and never answer. */
const troubles = {
  refuses: (server: PrivateServer) => server.kill(),
  'never answers': (server: PrivateServer) => server.freeze(true),
}

// One for all tests of this file, since each leaves it as it was; to make one takes longer than most of them.
let postgres: PrivateServer
beforeAll(async () => {
  postgres = await startPostgres()
  await migrate(postgres.url)
})
afterAll(() => postgres.stop())

async function openCleanSite(): Promise<Site> {
  const site = await openSite({ engine: 'redis', databaseUrl: postgres.url })
  await site.query('TRUNCATE jobs, nodes')
  return site
}
type Trouble = keyof typeof troubles
const kinds = Object.keys(troubles) as Trouble[]

test.each(kinds)(
  'with a Redis that %s the worker is gone within SHUTDOWN_MS and the job is free',
  async (kind) => {
    const site = await openSite({ engine: 'redis' })
    const worker = await site.startWorker({ SHUTDOWN_MS: String(shutdownMs) })
    const id = await site.enqueue('sleep', { ms: 600_000 })
    await site.jobIs(id, 'active')
    if (site.redis) await troubles[kind](site.redis)
    const began = performance.now()
    worker.signal('SIGTERM')
    const { code } = await worker.exit
    expect(performance.now() - began).toBeLessThan(longestStopMs(shutdownMs))
    expect([0, 75]).toContain(code)
    expect(await site.job(id)).toMatchObject({ state: 'waiting', attempts: 0, interruptions: 1 })
    expect(await site.nodes()).toEqual([])
    if (kind === 'never answers') await site.redis?.freeze(false)
  },
)

test.each(kinds)(
  'with a Postgres that %s the worker is gone within SHUTDOWN_MS and the job runs later',
  async (kind) => {
    const site = await openCleanSite()
    const worker = await site.startWorker({ SHUTDOWN_MS: String(shutdownMs) })
    const id = await site.enqueue('sleep', { ms: 600_000 })
    await site.jobIs(id, 'active')
    // The start of a run is not waited for by the disk; a Postgres killed right after it may forget it.
    await site.query('CHECKPOINT')
    await troubles[kind](postgres)
    const began = performance.now()
    worker.signal('SIGTERM')
    const { code } = await worker.exit
    const tookMs = performance.now() - began
    if (kind === 'refuses') await postgres.restart()
    else await postgres.freeze(false)
    expect(tookMs).toBeLessThan(longestStopMs(shutdownMs))
    expect([0, 75]).toContain(code)
    await site.startWorker()
    const job = await eventually(
      async () => {
        const now = await site.job(id)
        expect(now).toMatchObject({ state: 'active', attempts: 0, interruptions: 1 })
        return now
      },
      { timeoutMs: 30_000 },
    )
    expect(job.runner).toBeDefined()
  },
)

test('with both stores frozen the worker is gone within SHUTDOWN_MS all the same', async () => {
  const site = await openCleanSite()
  const worker = await site.startWorker({ SHUTDOWN_MS: String(shutdownMs) })
  const id = await site.enqueue('sleep', { ms: 600_000 })
  await site.jobIs(id, 'active')
  await postgres.freeze(true)
  await site.redis?.freeze(true)
  const began = performance.now()
  worker.signal('SIGTERM')
  await worker.exit
  const tookMs = performance.now() - began
  await postgres.freeze(false)
  await site.redis?.freeze(false)
  expect(tookMs).toBeLessThan(longestStopMs(shutdownMs))
})

test('a Postgres that hangs is told of, and a job that ran meanwhile is completed once it is back', async () => {
  const site = await openCleanSite()
  const worker = await site.startWorker()
  const id = await site.enqueue('sleep', { ms: 3_000 })
  await site.jobIs(id, 'active')
  await postgres.freeze(true)
  await worker.waitForLine(/no heartbeat reached Postgres/, 40_000)
  await postgres.freeze(false)
  await worker.waitForLine(/Postgres is back/, 40_000)
  const { attempts } = await site.jobIs(id, 'completed', 40_000)
  expect(attempts).toBe(1)
})
