import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../../src/core/clock.ts'
import { createPostgresBackend } from '../../../../src/platform/queues/backends/postgres.ts'
import { migrateQueues } from '../../../../src/platform/queues/migrate.ts'
import { entry, exerciseQueueBackend } from '../../../contracts/queue-backend.ts'
import { testDatabase } from '../../../support/databases.ts'
import { eventually, projectRoot, spawnNode } from '../../../support/processes.ts'
import { startPostgres } from '../../../support/servers.ts'

const clock = createSystemClock()
const open = (url: string, connections = 12) =>
  createPostgresBackend({ url, clock, connections, onError: () => undefined })

exerciseQueueBackend('Postgres', async () => open((await testDatabase()).url))

describe('the Postgres engine', () => {
  it('fails at once while Postgres is away, and works when it is back, also when it began without', async () => {
    const server = await startPostgres()
    await migrateQueues(server.url)
    await server.kill()
    const backend = open(server.url)
    const seen: string[] = []
    const consumer = backend.consume({
      queue: 'q',
      runner: 'r',
      concurrency: 2,
      process: async ({ id }) => (seen.push(id), { kind: 'finished' }),
      onLost: () => undefined,
      onError: () => undefined,
    })
    const started = consumer.start()
    const before = performance.now()
    await expect(backend.add('q', [entry()])).rejects.toMatchObject({ code: 'QUEUE_UNAVAILABLE' })
    expect(performance.now() - before).toBeLessThan(4_000)

    await server.restart()
    await started
    await eventually(() => backend.add('q', [entry()]))
    await eventually(() => expect(seen).toHaveLength(1))

    // And once more in the middle of its work.
    await server.kill()
    await server.restart()
    await eventually(() => backend.add('q', [entry()]), { timeoutMs: 30_000 })
    await eventually(() => expect(seen).toHaveLength(2), { timeoutMs: 30_000 })
    await consumer.close(2_000)
    await backend.close()
  })

  it('brings the entry of a node that died elsewhere within some seconds, though nobody handed it back', async () => {
    const { url } = await testDatabase()
    const backend = open(url)
    const doomed = spawnNode([
      path.join(projectRoot, 'test/fixtures/queues/hold-entry.ts'),
      'postgres',
      url,
      'q',
    ])
    const added = entry()
    await backend.add('q', [added])
    await doomed.waitForLine(/^holds/)
    const seen: string[] = []
    const consumer = backend.consume({
      queue: 'q',
      runner: 'r',
      concurrency: 2,
      process: async ({ id }) => (seen.push(id), { kind: 'finished' }),
      onLost: () => undefined,
      onError: () => undefined,
    })
    await consumer.start()
    await doomed.kill()
    const before = performance.now()
    await eventually(() => expect(seen).toEqual([added.id]), { timeoutMs: 30_000 })
    expect(performance.now() - before).toBeLessThan(10_000)
    await consumer.close(1_000)
    await backend.close()
  })

  it('closes in time while Postgres does not answer', async () => {
    const server = await startPostgres()
    await migrateQueues(server.url)
    const backend = open(server.url)
    const consumer = backend.consume({
      queue: 'q',
      runner: 'r',
      concurrency: 2,
      process: async () => ({ kind: 'finished' }),
      onLost: () => undefined,
      onError: () => undefined,
    })
    await consumer.start()
    await server.freeze(true)
    try {
      const before = performance.now()
      await consumer.close(1_000)
      await backend.close()
      expect(performance.now() - before).toBeLessThan(4_500)
    } finally {
      await server.freeze(false)
    }
  })
})
