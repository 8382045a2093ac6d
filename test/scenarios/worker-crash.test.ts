import { describe, expect, test } from 'vitest'
import { eventually, isRunning } from '../support/processes.ts'
import { childOf, type EngineName, openSite, untilUp } from '../support/workers.ts'

const engines: EngineName[] = ['redis', 'postgres']
const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0

describe.each(engines)('on %s', (engine) => {
  test('the job of a killed child runs elsewhere within half a second, median of ten', async () => {
    const site = await openSite({ engine })
    await site.startWorker({ WORKER_PROCESSES: '2' })
    const times: number[] = []
    for (let round = 0; round < 10; round++) {
      // Elsewhere has to exist, and a boot under way would be measured too: the child of the round before is replaced.
      await untilUp(site, 2)
      const id = await site.enqueue('sleep', { ms: 600_000 })
      await site.jobIs(id, 'active')
      const child = await childOf(site, id)
      const began = performance.now()
      process.kill(child.pid, 'SIGKILL')
      await eventually(
        async () => {
          const job = await site.job(id)
          expect(job.state).toBe('active')
          expect(job.runner).not.toBe(child.runner)
        },
        { timeoutMs: 10_000, everyMs: 5 },
      )
      times.push(Math.round(performance.now() - began))
      expect(await site.job(id)).toMatchObject({ attempts: 0, interruptions: 1 })
      // Out of the way, so that the next round has its own.
      await site.query(`UPDATE jobs SET outcome = 'cancelled', finished_at = now() WHERE id = $1`, [id])
    }
    console.log(`${engine}: rerun after SIGKILL of a child, ms: ${times.join(' ')}, median ${median(times)}`)
    expect(median(times)).toBeLessThan(500)
  })

  test('the jobs of a node that was killed run on another within six seconds', async () => {
    const site = await openSite({ engine })
    const first = await site.startWorker()
    const ids = await Promise.all([1, 2, 3].map(() => site.enqueue('sleep', { ms: 600_000 })))
    for (const id of ids) await site.jobIs(id, 'active')
    const before = new Set((await site.nodes()).flatMap((node) => node.runners))
    await site.startWorker()
    const began = performance.now()
    await first.kill()
    for (const id of ids) {
      await eventually(
        async () => {
          const job = await site.job(id)
          expect(job.state).toBe('active')
          expect(before.has(job.runner ?? '')).toBe(false)
        },
        { timeoutMs: 20_000, everyMs: 10 },
      )
    }
    const tookMs = Math.round(performance.now() - began)
    console.log(`${engine}: rerun after SIGKILL of a node, ms: ${tookMs}`)
    expect(tookMs).toBeLessThan(6_000)
  })

  test('a dead master leaves no orphans, and its jobs finish or go on elsewhere', async () => {
    const site = await openSite({ engine })
    const worker = await site.startWorker({ SHUTDOWN_MS: '2500', WORKER_PROCESSES: '2' })
    const short = await site.enqueue('sleep', { ms: 600 })
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
      { timeoutMs: 6_000 },
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
    expect(await site.jobIs(id, 'failed', 15_000)).toMatchObject({ error: { code: 'JOB_POISONOUS' } })
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
  const worker = await site.startWorker({ WATCHDOG_MS: '500', WORKER_PROCESSES: '1' })
  const id = await site.enqueue('block', { ms: 600_000 })
  const line = JSON.parse(await worker.waitForLine(/event loop is blocked here/, 20_000)) as {
    stack: string[]
  }
  expect(line.stack.join('\n')).toContain('fixtures/jobs/index.ts')
  await eventually(async () => expect((await site.job(id)).interruptions).toBe(1), { timeoutMs: 20_000 })
  expect(worker.lines.some((each) => each.includes('killing the blocked child') && !each.includes(id))).toBe(
    true,
  )
})
