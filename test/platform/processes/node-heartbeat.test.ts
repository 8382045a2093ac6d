import { pino } from 'pino'
import { expect, onTestFinished, test } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { migrate } from '../../../src/platform/postgres/migrate.ts'
import { createPostgres } from '../../../src/platform/postgres/postgres.ts'
import { createNodeHeartbeat, type NodeView } from '../../../src/platform/processes/node-heartbeat.ts'
import { testDatabase } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'
import { startPostgres } from '../../support/servers.ts'

async function setUp(url: string, queryTimeoutMs = 500) {
  const postgres = createPostgres({
    url,
    max: 2,
    applicationName: 'test',
    maxWaitMs: queryTimeoutMs,
    queryTimeoutMs,
    onError: () => undefined,
  })
  const view: NodeView = { state: 'starting', runners: [], children: [] }
  const lines: string[] = []
  const heartbeat = createNodeHeartbeat({
    postgres,
    node: { id: 'node-1', kind: 'worker', host: 'here', pid: 1, version: '0' },
    view: () => view,
    clock: createSystemClock(),
    log: pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line).msg) }),
    everyMs: 100,
  })
  onTestFinished(async () => {
    await heartbeat.stop(1_000)
    await postgres.close()
  })
  const read = async () =>
    (
      await postgres.query<{ id: string; state: string; runners: string[]; age: number }>(
        'SELECT id, state, runners, extract(epoch FROM clock_timestamp() - heartbeat_at)::float AS age FROM nodes ORDER BY id',
      )
    ).rows
  return { heartbeat, view, postgres, read, lines }
}

test('the row is there after the start, stays fresh, and is gone after the stop', async () => {
  const { heartbeat, read } = await setUp((await testDatabase()).url)
  await heartbeat.start()
  expect(await read()).toMatchObject([{ id: 'node-1', state: 'starting' }])
  // Older than the pause between two beats only if there are none.
  const before = (await read())[0]?.age ?? 0
  await eventually(async () => expect((await read())[0]?.age).toBeLessThan(before))
  await heartbeat.stop(1_000)
  expect(await read()).toEqual([])
})

test('record resolves when what is true now is committed', async () => {
  const { heartbeat, view, read } = await setUp((await testDatabase()).url)
  await heartbeat.start()
  for (const runner of ['a', 'b', 'c']) {
    view.runners = [...(view.runners ?? []), runner]
    await heartbeat.record()
    expect((await read())[0]?.runners).toEqual(view.runners)
  }
})

test('what was counted is written when it has changed, now and then, and stays in between', async () => {
  const { heartbeat, view, postgres } = await setUp((await testDatabase()).url)
  const written = async () => (await postgres.query('SELECT metrics, xmin FROM nodes')).rows[0]?.['metrics']
  view.metrics = '{"n":1}'
  await heartbeat.start()
  expect(await written()).toEqual({ n: 1 })
  view.metrics = '{"n":2}'
  await heartbeat.record()
  // Not with each heartbeat.
  expect(await written()).toEqual({ n: 1 })
  await eventually(async () => expect(await written()).toEqual({ n: 2 }))
  await heartbeat.record()
  expect(await written()).toEqual({ n: 2 })
})

test('rows of nodes that are gone for a day are pruned', async () => {
  const { heartbeat, read, postgres } = await setUp((await testDatabase()).url)
  const insert = `INSERT INTO nodes (id, kind, host, pid, version, state, heartbeat_at)
                  VALUES ($1, 'worker', 'h', 1, '0', 'up', now() - $2::interval)`
  await postgres.query(insert, ['old', '25 hours'])
  await postgres.query(insert, ['recent', '23 hours'])
  await heartbeat.start()
  await eventually(async () => expect((await read()).map((row) => row.id)).toEqual(['node-1', 'recent']))
})

test('a Postgres that hangs is noticed, said once, and what waits is written when it is back', async () => {
  const server = await startPostgres()
  await migrate(server.url)
  const { heartbeat, view, read, lines } = await setUp(server.url)
  await heartbeat.start()
  await server.freeze(true)
  view.runners = ['late']
  const recorded = heartbeat.record()
  await eventually(() => expect(lines.filter((line) => line.startsWith('no heartbeat'))).toHaveLength(1), {
    timeoutMs: 30_000,
  })
  await server.freeze(false)
  await recorded
  expect((await read())[0]?.runners).toEqual(['late'])
  expect(lines.filter((line) => line.startsWith('no heartbeat'))).toHaveLength(1)
  expect(lines.some((line) => line.startsWith('Postgres is back'))).toBe(true)
})

test('a stop never takes longer than its limit, also when Postgres hangs', async () => {
  const server = await startPostgres()
  await migrate(server.url)
  const { heartbeat } = await setUp(server.url, 10_000)
  await heartbeat.start()
  await server.freeze(true)
  const began = performance.now()
  await heartbeat.stop(300)
  expect(performance.now() - began).toBeLessThan(3_000)
  await server.freeze(false)
})
