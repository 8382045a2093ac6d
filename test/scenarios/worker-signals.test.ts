import { expect, test } from 'vitest'
import { eventually, isRunning } from '../support/processes.ts'
import { openSite, type Site } from '../support/workers.ts'

const pidsOf = async (site: Site) =>
  (await site.nodes()).flatMap((node) => node.children.map((child) => child.pid))

test('a stop during a roll is a stop, and nothing is left running', async () => {
  const site = await openSite({ engine: 'redis' })
  const worker = await site.startWorker({ SHUTDOWN_MS: '15000', WORKER_PROCESSES: '2' })
  const id = await site.enqueue('sleep', { ms: 1_500 })
  await site.jobIs(id, 'active')
  worker.signal('SIGHUP')
  await worker.waitForLine(/rolling the children/)
  worker.signal('SIGHUP')
  worker.signal('SIGTERM')
  expect((await worker.exit).code).toBe(0)
  expect(await site.job(id)).toMatchObject({ state: 'completed', interruptions: 0 })
  expect(await site.nodes()).toEqual([])
})

test.each(['SIGTSTP', 'SIGUSR2'] as const)(
  '%s makes the worker quiet: what runs goes on, nothing new is taken',
  async (signal) => {
    const site = await openSite({ engine: 'redis' })
    const worker = await site.startWorker({ WORKER_PROCESSES: '2' })
    const running = await site.enqueue('sleep', { ms: 1_000 })
    await site.jobIs(running, 'active')
    worker.signal(signal)
    await eventually(async () => expect((await site.nodes())[0]?.state).toBe('quiet'))
    const later = await site.enqueue('sleep', { ms: 1 })
    await site.jobIs(running, 'completed')
    // Also a child that comes later stays quiet.
    const [pid = 0] = await pidsOf(site)
    process.kill(pid, 'SIGKILL')
    await eventually(
      async () => {
        const children = (await site.nodes())[0]?.children ?? []
        expect(children.map((child) => child.state)).toEqual(['quiet', 'quiet'])
        expect(children.some((child) => child.pid === pid)).toBe(false)
      },
      { timeoutMs: 30_000 },
    )
    expect(await site.job(later)).toMatchObject({ state: 'waiting', attempts: 0 })
    worker.signal('SIGTERM')
    expect((await worker.exit).code).toBe(0)
  },
)

test('USR1 prints what every child is doing, and nothing stops', async () => {
  const site = await openSite({ engine: 'redis' })
  const worker = await site.startWorker({ WORKER_PROCESSES: '2' })
  const id = await site.enqueue('sleep', { ms: 600_000 })
  // At once: what the children have told by themselves until now is up to a second old.
  await site.jobIs(id, 'active')
  worker.signal('SIGUSR1')
  await worker.waitForLine(/^ {2}child 2 /)
  await worker.waitForLine(/^ {2}child 1 /)
  await worker.waitForLine(new RegExp(`^ {4}sleep ${id} for \\d`))
  expect(worker.lines.filter((line) => line.includes(`sleep ${id} for`))).toHaveLength(1)
  expect(worker.lines.filter((line) => /^ {2}child \d \(pid \d+\) up/.test(line))).toHaveLength(2)
  for (const pid of await pidsOf(site)) expect(await isRunning(pid)).toBe(true)
})
