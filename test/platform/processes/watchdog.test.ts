import { expect, test } from 'vitest'
import { eventually, isRunning, projectRoot, spawnNode } from '../../support/processes.ts'

const child = `${projectRoot}/test/fixtures/worker/child.ts`

test('the stack of a blocked event loop is logged by the thread beside it', async () => {
  const run = spawnNode([`${projectRoot}/test/fixtures/worker/block.ts`], { TEST_WATCHDOG_MS: '300' })
  const line = JSON.parse(await run.waitForLine(/event loop is blocked here/)) as {
    stack: string[]
    runner: string
  }
  expect(line.stack.join('\n')).toMatch(/spinForEver .*block\.ts:\d+/)
  expect(line.runner).toBe('blocked-one')
})

test('a blocked child whose master is dead is ended by its own thread', async () => {
  const master = spawnNode([`${projectRoot}/test/fixtures/worker/parent.ts`, child, 'blocked'], {
    TEST_WATCHDOG_MS: '600',
  })
  const pid = Number((await master.waitForLine(/^child \d+$/)).split(' ')[1])
  await master.waitForLine(/^started$/)
  master.signal('SIGKILL')
  await eventually(async () => expect(await isRunning(pid)).toBe(false), { timeoutMs: 5_000 })
})

test('a child whose master is dead finishes its job and ends', async () => {
  const master = spawnNode([`${projectRoot}/test/fixtures/worker/parent.ts`, child, 'busy:700'])
  const pid = Number((await master.waitForLine(/^child \d+$/)).split(' ')[1])
  await master.waitForLine(/^started$/)
  const began = performance.now()
  master.signal('SIGKILL')
  await eventually(async () => expect(await isRunning(pid)).toBe(false), { timeoutMs: 5_000 })
  expect(performance.now() - began).toBeGreaterThan(500)
})

test('a child that cannot hand back without its master ends all the same before its deadline', async () => {
  const master = spawnNode([`${projectRoot}/test/fixtures/worker/parent.ts`, child, 'stubborn'])
  const pid = Number((await master.waitForLine(/^child \d+$/)).split(' ')[1])
  await master.waitForLine(/^started$/)
  const began = performance.now()
  master.signal('SIGKILL')
  await eventually(async () => expect(await isRunning(pid)).toBe(false), { timeoutMs: 5_000 })
  expect(performance.now() - began).toBeLessThan(3_700)
})
