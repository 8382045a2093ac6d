import path from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../../src/core/clock.ts'
import type { Consumer, QueueBackend } from '../../../../src/platform/queues/backend.ts'
import { createRedisBackend } from '../../../../src/platform/queues/backends/redis.ts'
import { createRedis } from '../../../../src/platform/redis.ts'
import { entry, exerciseQueueBackend } from '../../../contracts/queue-backend.ts'
import { testRedis } from '../../../support/databases.ts'
import { eventually, projectRoot, spawnNode } from '../../../support/processes.ts'
import { startRedis } from '../../../support/servers.ts'

const clock = createSystemClock()
const holdEntry = path.join(projectRoot, 'test/fixtures/queues/hold-entry.ts')
const opened: { close(limitMs: number): Promise<void> }[] = []
const open = (url: string, prefix = 'baton'): QueueBackend => {
  const backend = createRedisBackend({ url, clock, prefix, onError: () => undefined })
  opened.unshift(backend)
  return backend
}
const consume = async (backend: QueueBackend, seen: string[]): Promise<Consumer> => {
  const consumer = backend.consume({
    queue: 'q',
    runner: 'r',
    concurrency: 2,
    process: async ({ id }) => (seen.push(id), { kind: 'finished' }),
    onLost: () => undefined,
    onError: () => undefined,
  })
  opened.unshift(consumer)
  await consumer.start()
  return consumer
}
afterEach(async () => {
  for (const each of opened.splice(0)) await each.close(1_000)
})

exerciseQueueBackend('Redis', async () => {
  const { url, prefix } = await testRedis()
  return createRedisBackend({ url, clock, prefix, onError: () => undefined })
})

exerciseQueueBackend('a Redis Cluster', async () => {
  const server = await startRedis({
    args: ['--cluster-enabled', 'yes', '--cluster-announce-ip', '127.0.0.1'],
  })
  const node = createRedis(server.url, 'consumer')
  await node.call('CLUSTER', 'ADDSLOTSRANGE', '0', '16383')
  await eventually(async () => {
    if (!String(await node.call('CLUSTER', 'INFO')).includes('cluster_state:ok')) throw new Error('not ready')
  })
  node.disconnect()
  const backend = createRedisBackend({
    url: server.url.replace('redis://', 'redis+cluster://'),
    clock,
    onError: () => undefined,
  })
  return { ...backend, close: async () => (await backend.close(), await server.stop()) }
})

describe('the Redis engine', () => {
  it('fills Redis only so far that what is in it can still be fetched', async () => {
    const server = await startRedis({ args: ['--maxmemory', '8mb', '--maxmemory-policy', 'noeviction'] })
    const backend = open(server.url)
    const bulk = () => Array.from({ length: 500 }, () => entry())
    let added = 0
    const fill = async (): Promise<void> => {
      for (;;) {
        await backend.add('q', bulk())
        added += 500
      }
    }
    await expect(fill()).rejects.toMatchObject({ code: 'QUEUE_UNAVAILABLE' })
    await expect(backend.add('q', [entry({ delayMs: 60_000 })])).rejects.toThrow(/maxmemory/)
    expect(added).toBeGreaterThan(5_000)
    const seen: string[] = []
    await consume(backend, seen)
    await eventually(() => expect(seen.length).toBeGreaterThanOrEqual(added), { timeoutMs: 30_000 })
    await backend.add('q', [entry()])
    await eventually(() => expect(seen.length).toBeGreaterThanOrEqual(added + 1))
  })

  it('delivers nothing that has lost its content to eviction, and takes it again', async () => {
    const server = await startRedis()
    const backend = open(server.url)
    const [husk, whole] = [entry(), entry()]
    await backend.add('q', [husk])
    const client = createRedis(server.url, 'consumer')
    expect(await client.del(`{baton:q}:q:${husk.id}`)).toBe(1)
    const seen: string[] = []
    await consume(backend, seen)
    await backend.add('q', [whole])
    await eventually(() => expect(seen).toContain(whole.id))
    await eventually(async () => expect(await client.exists(`{baton:q}:q:${husk.id}`)).toBe(0))
    expect(seen).toEqual([whole.id])
    await backend.add('q', [husk])
    await eventually(() => expect(seen).toEqual([whole.id, husk.id]))
    client.disconnect()
  })

  it('refuses at once while Redis is away, and works when it is back', async () => {
    const server = await startRedis()
    const backend = open(server.url)
    await backend.add('q', [entry()])
    await server.kill()
    const before = performance.now()
    await expect(backend.add('q', [entry()])).rejects.toMatchObject({ code: 'QUEUE_UNAVAILABLE' })
    await expect(backend.epoch('q')).rejects.toMatchObject({ code: 'QUEUE_UNAVAILABLE' })
    await expect(backend.ping(500)).rejects.toMatchObject({ code: 'QUEUE_UNAVAILABLE' })
    expect(performance.now() - before).toBeLessThan(3_000)
    await server.restart()
    await eventually(() => backend.add('q', [entry()]))
    expect((await backend.counts('q')).waiting).toBe(1)
  })

  it('begins its life while Redis is away', async () => {
    const server = await startRedis()
    await server.kill()
    const backend = open(server.url)
    const seen: string[] = []
    await expect(backend.add('q', [entry()])).rejects.toMatchObject({ code: 'QUEUE_UNAVAILABLE' })
    await consume(backend, seen)
    await server.restart()
    await eventually(() => backend.add('q', [entry()]))
    await eventually(() => expect(seen).toHaveLength(1))
  })

  it('gives up on a Redis that does not answer', async () => {
    const server = await startRedis()
    const backend = open(server.url)
    await backend.ping(1_000)
    await server.freeze(true)
    try {
      const before = performance.now()
      await expect(backend.add('q', [entry()])).rejects.toMatchObject({ code: 'QUEUE_UNAVAILABLE' })
      expect(performance.now() - before).toBeLessThan(9_000)
      await expect(backend.ping(300)).rejects.toMatchObject({ code: 'QUEUE_UNAVAILABLE' })
    } finally {
      await server.freeze(false)
    }
  })

  it('has another epoch after a flush, and after a restart that kept everything', async () => {
    const server = await startRedis({ appendOnly: true })
    const backend = open(server.url)
    expect(await backend.epoch('q')).toBeUndefined()
    const first = await backend.mark('q')
    await backend.add('q', [entry()])
    await server.kill()
    await server.restart()
    const second = await eventually(() => backend.epoch('q'))
    expect((await backend.counts('q')).waiting).toBe(1)
    expect(second).toBeDefined()
    expect(second).not.toBe(first)

    const client = createRedis(server.url, 'consumer')
    await client.flushall()
    client.disconnect()
    expect(await backend.epoch('q')).toBeUndefined()
    expect(await backend.mark('q')).not.toBe(second)
  })

  it('brings the entry of a node that died elsewhere within some seconds, though nobody handed it back', async () => {
    const { url, prefix } = await testRedis()
    const backend = open(url, prefix)
    const doomed = spawnNode([holdEntry, 'redis', url, 'q', prefix])
    const added = entry()
    await backend.add('q', [added])
    await doomed.waitForLine(/^holds/)
    const seen: string[] = []
    await consume(backend, seen)
    await clock.sleep(5_000)
    // Its lock is renewed as long as it lives.
    expect(seen).toEqual([])
    await doomed.kill()
    const before = performance.now()
    await eventually(() => expect(seen).toEqual([added.id]), { timeoutMs: 30_000 })
    expect(performance.now() - before).toBeLessThan(10_000)
  })

  it('goes on consuming soon after an outage', async () => {
    const server = await startRedis()
    const backend = open(server.url)
    const seen: string[] = []
    await consume(backend, seen)
    await backend.add('q', [entry()])
    await eventually(() => expect(seen).toHaveLength(1))
    await server.kill()
    await clock.sleep(300)
    await server.restart()
    const before = performance.now()
    await eventually(() => backend.add('q', [entry()]))
    await eventually(() => expect(seen).toHaveLength(2))
    expect(performance.now() - before).toBeLessThan(6_000)
  })

  it('closes in time while Redis is away, and while it does not answer', async () => {
    const server = await startRedis()
    const [backend, other] = [open(server.url), open(server.url)]
    const consumers = [await consume(backend, []), await consume(other, [])]
    await server.freeze(true)
    const before = performance.now()
    await consumers[0]?.close(700)
    await server.freeze(false)
    await server.kill()
    await consumers[1]?.close(700)
    await Promise.all([backend.close(), other.close()])
    expect(performance.now() - before).toBeLessThan(4_500)
  })
})
