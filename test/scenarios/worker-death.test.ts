import { describe, expect, test } from 'vitest'
import { eventually, isRunning } from '../support/processes.ts'
import { type EngineName, openSite } from '../support/workers.ts'

// What the death of a process does beside the time it costs, which is in worker-crash.test.ts.

const engines: EngineName[] = ['redis', 'postgres']

describe.each(engines)('on %s', (engine) => {
  test('a dead master leaves no orphans, and its jobs finish or go on elsewhere', async () => {
    const site = await openSite({ engine })
    const worker = await site.startWorker({ SHUTDOWN_MS: '2500', WORKER_PROCESSES: '2' })
    const short = await site.enqueue('sleep', { ms: 1_500 })
    const long = await site.enqueue('sleep', { ms: 600_000 })
    await site.jobIs(short, 'active')
    await site.jobIs(long, 'active')
    const pids = (await site.nodes()).flatMap((node) => node.children.map((child) => child.pid))
    expect(pids).toHaveLength(2)
    worker.signal('SIGKILL')
    await site.jobIs(short, 'completed')
    await eventually(
      async () => {
        for (const pid of pids) expect(await isRunning(pid)).toBe(false)
      },
      { timeoutMs: 10_000 },
    )
    expect(await site.job(short)).toMatchObject({ interruptions: 0 })
    expect(await site.job(long)).toMatchObject({ state: 'waiting', attempts: 0, interruptions: 1 })
    await site.startWorker()
    await site.jobIs(long, 'active')
  })
})

// What the engine has no part in is tried on one.
test.each(['crash', 'leave'])(
  'a job that takes its process down again and again (%s) is set aside, the others go on',
  async (name) => {
    const site = await openSite({ engine: 'redis' })
    const worker = await site.startWorker()
    const id = await site.enqueue(name, {})
    // Each death is handed back at once: five locks that run out would take longer.
    expect(await site.jobIs(id, 'failed', 22_000)).toMatchObject({ error: { code: 'JOB_POISONOUS' } })
    const other = await site.enqueue('sleep', { ms: 1 })
    await site.jobIs(other, 'completed', 30_000)
    worker.signal('SIGTERM')
    expect((await worker.exit).code).toBe(0)
  },
)

test('a job that takes its process down takes none of those beside it along', async () => {
  const site = await openSite({ engine: 'redis' })
  const beside = [await site.enqueue('sleep', { ms: 1_500 })]
  const bad = await site.enqueue('leave', { ms: 100, code: 1 })
  for (let more = 0; more < 2; more++) beside.push(await site.enqueue('sleep', { ms: 1_500 }))
  await site.startWorker({ WORKER_PROCESSES: '1', WORKER_CONCURRENCY: '4' })
  expect(await site.jobIs(bad, 'failed', 60_000)).toMatchObject({ error: { code: 'JOB_POISONOUS' } })
  for (const id of beside) await site.jobIs(id, 'completed', 30_000)
})

test('a job that blocks the event loop is found with its stack, and its child is replaced', async () => {
  const site = await openSite({ engine: 'redis' })
  const worker = await site.startWorker({ WATCHDOG_MS: '1000', WORKER_PROCESSES: '1' })
  const id = await site.enqueue('block', { ms: 600_000 })
  const line = JSON.parse(await worker.waitForLine(/event loop is blocked here/, 40_000)) as {
    stack: string[]
  }
  expect(line.stack.join('\n')).toContain('fixtures/jobs/index.ts')
  await eventually(async () => expect((await site.job(id)).interruptions).toBe(1), { timeoutMs: 30_000 })
  expect(worker.lines.some((each) => each.includes('killing the blocked child') && !each.includes(id))).toBe(
    true,
  )
})
