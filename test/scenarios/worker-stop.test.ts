import { describe, expect, test } from 'vitest'
import { type EngineName, longestStopMs, openSite, type Site } from '../support/workers.ts'

const engines: EngineName[] = ['redis', 'postgres']
/** A fortieth of it is for handing back a row: a shorter one would ask more of a busy machine than a real one ever does. */
const shutdownMs = 4_000

/** Sends the signal. @returns the exit, and how long it took, ms */
async function stop(worker: Awaited<ReturnType<Site['startWorker']>>, signal: NodeJS.Signals = 'SIGTERM') {
  const began = performance.now()
  worker.signal(signal)
  const exit = await worker.exit
  return { ...exit, tookMs: performance.now() - began }
}

async function crashesOf(site: Site, id: string): Promise<number | undefined> {
  const [row] = await site.query<{ crashes: number }>('SELECT crashes FROM jobs WHERE id = $1', [id])
  return row?.crashes
}

describe.each(engines)('on %s', (engine) => {
  test('a job of a few seconds is finished before the worker ends with 0', async () => {
    const site = await openSite({ engine })
    const worker = await site.startWorker({ SHUTDOWN_MS: '20000' })
    const id = await site.enqueue('sleep', { ms: 1_500 })
    await site.jobIs(id, 'active')
    const { code, tookMs } = await stop(worker)
    expect(code).toBe(0)
    expect(await site.job(id)).toMatchObject({ state: 'completed', attempts: 1, interruptions: 0 })
    expect(tookMs).toBeGreaterThan(250)
    expect(tookMs).toBeLessThan(6_000)
    expect(await site.nodes()).toEqual([])
    expect(worker.lines.some((line) => line.includes('waiting for jobs') && line.includes(id))).toBe(true)
  })

  test('a job of ten minutes goes back unharmed within SHUTDOWN_MS and runs elsewhere', async () => {
    const site = await openSite({ engine })
    const worker = await site.startWorker({ SHUTDOWN_MS: String(shutdownMs) })
    const id = await site.enqueue('sleep', { ms: 600_000 })
    await site.jobIs(id, 'active')
    const { code, tookMs } = await stop(worker)
    expect(tookMs).toBeLessThan(longestStopMs(shutdownMs))
    expect(code).toBe(0)
    expect(await site.job(id)).toMatchObject({ state: 'waiting', attempts: 0, interruptions: 1 })
    await site.startWorker()
    // Nobody waits for a lock to run out.
    await site.jobIs(id, 'active', 3_500)
  })

  test('a job that blocks its event loop is killed, handed back by the master, and the exit code is 75', async () => {
    const site = await openSite({ engine })
    const worker = await site.startWorker({ SHUTDOWN_MS: String(shutdownMs) })
    const id = await site.enqueue('block', { ms: 600_000 })
    await site.jobIs(id, 'active')
    const { code, tookMs } = await stop(worker)
    expect(tookMs).toBeLessThan(longestStopMs(shutdownMs))
    expect(code).toBe(75)
    expect(await site.job(id)).toMatchObject({ state: 'waiting', attempts: 0, interruptions: 1 })
    // Five deploys must not set a long computation aside as poison.
    expect(await crashesOf(site, id)).toBe(0)
  })
})

// What the engine has no part in is tried on one.
test('a job that does not obey its signal goes back all the same', async () => {
  const site = await openSite({ engine: 'redis' })
  const worker = await site.startWorker({ SHUTDOWN_MS: String(shutdownMs) })
  const id = await site.enqueue('stubborn', { ms: 600_000 })
  await site.jobIs(id, 'active')
  const { tookMs } = await stop(worker)
  expect(tookMs).toBeLessThan(longestStopMs(shutdownMs))
  expect(await site.job(id)).toMatchObject({ state: 'waiting', attempts: 0, interruptions: 1 })
})

test('an iteration stops at its next item and goes on from there', async () => {
  const site = await openSite({ engine: 'redis' })
  const worker = await site.startWorker({ SHUTDOWN_MS: '20000' })
  const id = await site.enqueue('steps', { count: 20, ms: 100 })
  await site.jobIs(id, 'active')
  const { code, tookMs } = await stop(worker)
  expect(code).toBe(0)
  expect(tookMs).toBeLessThan(6_000)
  expect(await site.job(id)).toMatchObject({ state: 'waiting', attempts: 0, interruptions: 1 })
  await site.startWorker()
  const { result } = await site.jobIs(id, 'completed')
  expect((result as { first: number }).first).toBeGreaterThan(1)
  expect((result as { last: number }).last).toBe(20)
})

test('the signal may come to every process of the group, several times', async () => {
  const site = await openSite({ engine: 'redis' })
  const worker = await site.startWorker({ SHUTDOWN_MS: '20000' })
  const id = await site.enqueue('sleep', { ms: 1_500 })
  await site.jobIs(id, 'active')
  for (const signal of ['SIGTERM', 'SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGTERM'] as const)
    worker.signalGroup(signal)
  const { code } = await worker.exit
  expect(code).toBe(0)
  expect(await site.job(id)).toMatchObject({ state: 'completed', interruptions: 0 })
})

test.each([0, 3])(
  'a job that ends its process with %i during a drain goes back at once, as a crash',
  async (code) => {
    const site = await openSite({ engine: 'redis' })
    const worker = await site.startWorker({ SHUTDOWN_MS: '20000' })
    const id = await site.enqueue('leave', { ms: 1_500, code })
    await site.jobIs(id, 'active')
    const stopped = await stop(worker)
    expect(stopped.code).toBe(75)
    expect(stopped.tookMs).toBeLessThan(6_000)
    expect(await site.job(id)).toMatchObject({ state: 'waiting', attempts: 0, interruptions: 1 })
    expect(await crashesOf(site, id)).toBe(1)
    const told = worker.lines.filter((line) => line.includes('process.exit') && line.includes(id))
    expect(told).toHaveLength(1)
    expect(told[0]).toContain('fixtures/jobs/index.ts')
    // The entry is free too: nobody waits for a lock to run out.
    await site.startWorker()
    await site.jobIs(id, 'active', 3_500)
  },
)
