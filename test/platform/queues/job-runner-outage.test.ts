import { afterAll, describe, expect, it } from 'vitest'
import { type PrivateServer, startRedis } from '../../support/servers.ts'
import { createGate, jobOf, useStage } from './harness.ts'

let redis: PrivateServer | undefined
afterAll(() => redis?.stop())

describe('a runner whose Redis goes away', () => {
  const stage = useStage('redis', async () => {
    redis = await startRedis()
    return redis.url
  })

  it.each<[string, (server: PrivateServer) => Promise<void>]>([
    ['hangs', (server) => server.freeze(true)],
    ['dies', (server) => server.kill()],
  ])('and %s: jobs finish in their rows, and every step of a stop ends in its time', async (how, leave) => {
    const { queue, run, enqueue, reaches, ledger } = stage()
    const gate = createGate()
    const job = jobOf(queue(), 'working', async (payload) => {
      if ((payload as { ends?: true }).ends) return gate.opened
      return new Promise<never>(() => undefined)
    })
    const runner = await run([job])
    const [ends, hangs] = [await enqueue(job, { ends: true }), await enqueue(job)]
    await Promise.all([reaches(ends, 'active'), reaches(hangs, 'active')])
    if (redis) await leave(redis)

    const startedMs = performance.now()
    void runner.drain()
    gate.open()
    await reaches(ends, 'completed')
    await runner.interrupt('deadline', 200)
    await runner.drain()
    await runner.close(500)
    expect(performance.now() - startedMs).toBeLessThan(4_900)
    expect(await ledger.get(hangs)).toMatchObject({ state: 'waiting', interruptions: 1 })

    if (how === 'hangs') await redis?.freeze(false)
    else await redis?.restart()
  })
})
