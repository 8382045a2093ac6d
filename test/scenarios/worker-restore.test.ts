import { execFile } from 'node:child_process'
import { cp, rm } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { migrate } from '../../src/platform/postgres/migrate.ts'
import { createRedis } from '../../src/platform/redis.ts'
import { eventually } from '../support/processes.ts'
import { startSentinelGroup } from '../support/sentinel.ts'
import { startPostgres } from '../support/servers.ts'
import { type EngineName, openSite, type Site } from '../support/workers.ts'

// Stores that come back with less than they had.

const settleMs = 40_000
/** With the owner: as root the tests run Postgres as another user. */
const copyAll = (from: string, to: string) => promisify(execFile)('cp', ['-a', from, to])

async function openLedger(options: Parameters<typeof openSite>[0]): Promise<Site> {
  const site = await openSite(options)
  await site.query('CREATE TABLE effects (job uuid NOT NULL)')
  return site
}

async function enqueue(site: Site, count: number, ms = 20): Promise<void> {
  for (let each = 0; each < count; each++) await site.enqueue('once', { ms })
}

/** Waits until every row has ended well and no entry is left, and compares the effects with the rows. */
async function settle(site: Site): Promise<number> {
  const began = performance.now()
  await eventually(
    async () => {
      expect(await site.query('SELECT id FROM jobs WHERE outcome IS NULL LIMIT 1')).toEqual([])
      expect(await site.entries()).toBe(0)
    },
    { timeoutMs: settleMs, everyMs: 50 },
  )
  const took = Math.round(performance.now() - began)
  const wrong = await site.query(`SELECT j.id, j.outcome, count(e.job)::int AS effects
    FROM jobs j FULL JOIN effects e ON e.job = j.id
    GROUP BY j.id HAVING j.outcome IS DISTINCT FROM 'completed' OR count(e.job) <> 1`)
  expect(wrong).toEqual([])
  return took
}

const done = (site: Site, count: number): Promise<void> =>
  eventually(
    async () => {
      const rows = await site.query("SELECT FROM jobs WHERE outcome = 'completed'")
      expect(rows.length).toBeGreaterThanOrEqual(count)
    },
    { timeoutMs: 30_000 },
  )

const pids = async (site: Site) =>
  (await site.nodes()).flatMap((node) => node.children.map((child) => child.pid))

test('a Redis that comes back from an older dump repeats no job and loses none', async () => {
  const site = await openLedger({ engine: 'redis' })
  const redis = site.redis
  if (!redis?.folder) throw new Error('needs a local redis-server')
  await site.startWorker()
  await enqueue(site, 20, 50)
  // Some are done, some run, some wait.
  await done(site, 5)
  const client = createRedis(redis.url, 'consumer')
  await client.call('SAVE')
  client.disconnect()
  const [dump, kept] = ['dump.rdb', 'older.rdb'].map((name) => path.join(redis.folder ?? '', name))
  await cp(dump ?? '', kept ?? '')
  await enqueue(site, 20)
  await done(site, 30)
  const ended = await site.query("SELECT id, finished_at, attempts FROM jobs WHERE outcome = 'completed'")
  await enqueue(site, 10, 200)
  await redis.kill()
  await cp(kept ?? '', dump ?? '')
  await redis.restart()
  const tookMs = await settle(site)
  console.log(`all jobs had ended ${tookMs} ms after Redis was back from an older dump`)
  const still = await site.query('SELECT id, finished_at, attempts FROM jobs WHERE id = ANY($1)', [
    ended.map(({ id }) => id),
  ])
  expect(still.toSorted(byId)).toEqual(ended.toSorted(byId))
  expect(await site.query('SELECT id FROM jobs WHERE attempts <> 1')).toEqual([])
})

const byId = (a: Record<string, unknown>, b: Record<string, unknown>): number =>
  String(a['id']) < String(b['id']) ? -1 : 1

test('a Postgres that comes back from an older copy runs what it knows, and nothing else, on either engine', async () => {
  await Promise.all((['redis', 'postgres'] as const).map(restoreOlderCopy))
})

async function restoreOlderCopy(engine: EngineName): Promise<void> {
  const postgres = await startPostgres()
  await migrate(postgres.url)
  const site = await openLedger({ engine, databaseUrl: postgres.url })
  const worker = await site.startWorker()
  const [data, copy] = ['data', 'older'].map((name) => path.join(postgres.folder ?? '', name))
  await enqueue(site, 10)
  await done(site, 10)
  const before = await pids(site)
  await enqueue(site, 10, 400)
  await postgres.kill('SIGINT')
  await copyAll(data ?? '', copy ?? '')
  await postgres.restart()
  await done(site, 20)
  // Of these the copy knows nothing: some are done, some run, some wait, some are due later.
  await enqueue(site, 12, 300)
  await done(site, 23)
  await postgres.kill()
  await rm(data ?? '', { recursive: true })
  await copyAll(copy ?? '', data ?? '')
  await postgres.restart()
  const tookMs = await settle(site)
  const [{ rows } = {}] = await site.query<{ rows: number }>('SELECT count(*)::int AS rows FROM jobs')
  expect(rows).toBe(20)
  console.log(`${engine}: what the copy knew had ended ${tookMs} ms after Postgres was back`)
  await enqueue(site, 5)
  await settle(site)
  expect(await pids(site)).toEqual(before)
  worker.signal('SIGTERM')
  expect((await worker.exit).code).toBe(0)
}

/** As the acceptance does it: what the queue does not take is left to the reconciler. */
const enqueueAnyhow = (site: Site): Promise<unknown> =>
  site
    .enqueue('once', { ms: 20 })
    .catch(() => site.query('UPDATE jobs SET queued = false WHERE outcome IS NULL AND run_token IS NULL'))

test('a fail-over of Sentinel loses no job and doubles none', async () => {
  const group = await startSentinelGroup()
  const site = await openLedger({ engine: 'redis', redisUrl: group.url })
  const worker = await site.startWorker()
  await enqueue(site, 20, 50)
  await done(site, 5)
  const began = performance.now()
  await group.master.kill()
  // Accepted while no master is there: the row stands, the entry cannot be added.
  for (let each = 0; each < 5; each++) await enqueueAnyhow(site)
  await group.failedOver()
  const failedOverMs = Math.round(performance.now() - began)
  for (let each = 0; each < 10; each++) await enqueueAnyhow(site)
  const tookMs = await settle(site)
  expect(await site.query('SELECT id FROM jobs')).toHaveLength(35)
  console.log(`Sentinel failed over in ${failedOverMs} ms, all jobs had ended ${tookMs} ms later`)
  worker.signal('SIGTERM')
  expect((await worker.exit).code).toBe(0)
})
