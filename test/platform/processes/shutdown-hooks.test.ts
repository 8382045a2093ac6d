import { mkdtemp, readdir, rm } from 'node:fs/promises'
import path from 'node:path'
import { pino } from 'pino'
import { expect, onTestFinished, test } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createPostgres } from '../../../src/platform/postgres/postgres.ts'
import { createShutdownDebts } from '../../../src/platform/processes/shutdown-debts.ts'
import { createShutdownHooks, type ShutdownHook } from '../../../src/platform/processes/shutdown-hooks.ts'
import { testDatabase } from '../../support/databases.ts'

const clock = createSystemClock()
const log = pino({ level: 'silent' })

async function setUp(hooks: ShutdownHook[], options: { url?: string; folder?: string } = {}) {
  const url = options.url ?? (await testDatabase()).url
  const folder = options.folder ?? (await mkdtemp('/tmp/baton-test-debts-'))
  const postgres = createPostgres({ url, max: 2, applicationName: 'test', onError: () => undefined })
  onTestFinished(async () => {
    await postgres.close()
    await rm(folder, { recursive: true, force: true })
  })
  const debts = createShutdownDebts({ postgres, node: 'node-1', folder: path.join(folder, 'debts'), log })
  return { hooks: createShutdownHooks({ hooks, debts, clock, log }), postgres, url, folder }
}

const rowsOf = async (postgres: { query: (sql: string) => Promise<{ rows: unknown[] }> }) =>
  (await postgres.query('SELECT hook, node FROM shutdown_debts ORDER BY id')).rows

const hook = (name: string, run: ShutdownHook['run'] = async () => undefined): ShutdownHook => ({
  name,
  limitMs: 200,
  run,
})

test('hooks run in their order, one that fails does not keep the next', async () => {
  const ran: string[] = []
  const { hooks, postgres } = await setUp([
    hook('first', async () => void ran.push('first')),
    hook('second', () => Promise.reject(new Error('no'))),
    hook('third', async () => void ran.push('third')),
  ])
  expect(await hooks.run(clock.monotonicMs() + 5_000)).toEqual(['second'])
  expect(ran).toEqual(['first', 'third'])
  expect(await rowsOf(postgres)).toEqual([{ hook: 'second', node: 'node-1' }])
})

test('a hook that hangs is given up at its limit, and told so by its signal', async () => {
  let signal: AbortSignal | undefined
  const { hooks } = await setUp([
    hook('hangs', (given) => {
      signal = given
      return new Promise(() => undefined)
    }),
  ])
  expect(await hooks.run(clock.monotonicMs() + 5_000)).toEqual(['hangs'])
  expect(signal?.aborted).toBe(true)
})

test('hooks for which no time is left become debts without being begun', async () => {
  let begun = false
  const { hooks } = await setUp([hook('late', async () => void (begun = true))])
  expect(await hooks.run(clock.monotonicMs() - 1)).toEqual(['late'])
  expect(begun).toBe(false)
})

test('the next boot runs a debt once, however often it is owed, and then it is gone', async () => {
  let works = false
  let runs = 0
  const { hooks, postgres } = await setUp([
    hook('flush', async () => {
      if (!works) throw new Error('not yet')
      runs++
    }),
  ])
  await hooks.run(clock.monotonicMs() + 5_000)
  await hooks.run(clock.monotonicMs() + 5_000)
  await hooks.settle()
  expect(await rowsOf(postgres)).toHaveLength(2)
  works = true
  await hooks.settle()
  await hooks.settle()
  expect(runs).toBe(1)
  expect(await rowsOf(postgres)).toEqual([])
})

test('a debt of a hook that this process does not have stays for the one that has it', async () => {
  const broken = await setUp([hook('theirs', () => Promise.reject(new Error('no')))])
  await broken.hooks.run(clock.monotonicMs() + 5_000)
  const other = await setUp([hook('mine')], { url: broken.url })
  await other.hooks.settle()
  expect(await rowsOf(other.postgres)).toEqual([{ hook: 'theirs', node: 'node-1' }])
})

test('while Postgres is away a debt is a file, and the next boot finds it', async () => {
  let runs = 0
  const away = await setUp([hook('flush', () => Promise.reject(new Error('no')))], {
    url: 'postgres://nobody@127.0.0.1:1/none',
  })
  await away.hooks.run(clock.monotonicMs() + 1_000)
  expect(await readdir(path.join(away.folder, 'debts'))).toEqual(['node-1.json'])
  const back = await setUp([hook('flush', async () => void runs++)], { folder: away.folder })
  await back.hooks.settle()
  expect(runs).toBe(1)
  expect(await readdir(path.join(away.folder, 'debts'))).toEqual([])
})
