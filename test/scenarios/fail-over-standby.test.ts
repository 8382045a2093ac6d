import { expect, test } from 'vitest'
import { type BatonProcess, eventually } from '../support/processes.ts'
import { openSite, type Site } from '../support/workers.ts'

const intakeIs = (site: Site, intake: 'open' | 'draining' | 'closed'): Promise<unknown> =>
  site.query(`UPDATE site SET role = 'leader', lineage = coalesce(lineage, gen_random_uuid()), intake = $1`, [
    intake,
  ])

const nodeIs = (site: Site, state: string): Promise<void> =>
  eventually(
    async () => {
      const [node] = await site.nodes()
      expect(node?.state).toBe(state)
    },
    { timeoutMs: 20_000 },
  )

const isAlive = (worker: BatonProcess): boolean =>
  worker.child.exitCode === null && worker.child.signalCode === null

test('a worker stands by while its site takes no work, serves when it opens, and ends by TERM in each of them', async () => {
  const site = await openSite({ engine: 'redis' })
  await intakeIs(site, 'closed')
  const worker = site.spawnWorker({ SHUTDOWN_MS: '9000' })
  await nodeIs(site, 'standby')
  // Nobody to roll: it lives on, and nothing is forked.
  worker.signal('SIGHUP')
  await worker.waitForLine(/no children to roll/)
  const waiting = await site.enqueue('sleep', { ms: 1 })
  expect((await site.nodes())[0]?.children).toEqual([])

  await intakeIs(site, 'open')
  await nodeIs(site, 'up')
  await site.jobIs(waiting, 'completed')

  const running = await site.enqueue('sleep', { ms: 1_500 })
  await site.jobIs(running, 'active')
  await intakeIs(site, 'draining')
  await nodeIs(site, 'stopping')
  await nodeIs(site, 'standby')
  expect((await site.job(running)).state).toBe('completed')
  expect(await site.nodes()).toMatchObject([{ state: 'standby', runners: [], children: [] }])
  expect(isAlive(worker)).toBe(true)

  await intakeIs(site, 'open')
  await nodeIs(site, 'up')
  const again = await site.enqueue('sleep', { ms: 1 })
  await site.jobIs(again, 'completed')

  await intakeIs(site, 'draining')
  await nodeIs(site, 'standby')
  worker.signal('SIGTERM')
  expect(await worker.exit).toEqual({ code: 0, signal: null })
  expect(await site.nodes()).toEqual([])
})

test('a TERM while the children end for a draining site takes them over, and keeps its own deadline', async () => {
  const site = await openSite({ engine: 'postgres' })
  const worker = await site.startWorker({ SHUTDOWN_MS: '5000' })
  const stubborn = await site.enqueue('stubborn', { ms: 60_000 })
  await site.jobIs(stubborn, 'active')
  await intakeIs(site, 'draining')
  await nodeIs(site, 'stopping')
  const began = performance.now()
  worker.signal('SIGTERM')
  const { code } = await worker.exit
  expect(performance.now() - began).toBeLessThan(10_000)
  expect(code).toBe(0)
  expect((await site.job(stubborn)).state).toBe('waiting')
})
