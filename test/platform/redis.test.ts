import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { createRedis, type RedisClient, type RedisRole } from '../../src/platform/redis.ts'
import { testRedis } from '../support/databases.ts'
import { atEndOfTest } from '../support/processes.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'

/** Errors are told besides, and do not end the wait. */
const event = (client: RedisClient, name: string): Promise<void> =>
  new Promise((resolve) => client.once(name, () => resolve()))

async function connect(role: RedisRole) {
  const { url } = await testRedis()
  const proxy = await startTcpProxy(Number(new URL(url).port))
  const client = createRedis(proxy.through(url), role)
  client.on('error', () => undefined)
  atEndOfTest(() => client.disconnect())
  await event(client, 'ready')
  let closed = 0
  client.on('close', () => void closed++)
  return { proxy, client, closed: () => closed }
}

test.each(['producer', 'consumer'] as const)(
  'a %s gives up a connection that has owed an answer for five seconds, and goes on over another',
  async (role) => {
    const { proxy, client } = await connect(role)
    proxy.forget()
    const began = performance.now()
    const answer = client.ping().catch(() => 'failed')
    await event(client, 'close')
    expect(performance.now() - began).toBeLessThan(8_000)
    // What a producer asked is answered by then, good or bad; a consumer's question is sent again.
    await event(client, 'ready')
    expect(await client.ping()).toBe('PONG')
    expect(await answer).toBe(role === 'consumer' ? 'PONG' : 'failed')
  },
)

test('a connection is not ended for the silence of the one before it', async () => {
  const { proxy, client, closed } = await connect('consumer')
  proxy.stall()
  const answer = client.ping()
  await pause(500)
  proxy.cut()
  expect(await answer).toBe('PONG')
  expect(closed()).toBe(1)
  await pause(5_500)
  expect(closed()).toBe(1)
})
