import { once } from 'node:events'
import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import { migrate } from '../../../src/platform/postgres/migrate.ts'
import { startPostgres, startRedis } from '../../support/servers.ts'
import { type Harness, problem, producer, startHarness, viewer } from './web-harness.ts'

const good = { name: 'mail', payload: { to: 'a' } }

async function timed<T>(work: () => Promise<T>): Promise<{ ms: number; result: T }> {
  const began = performance.now()
  const result = await work()
  return { ms: performance.now() - began, result }
}

interface Readiness {
  ready: boolean
  checks: { process: string; postgres: string; queue: string }
}
const readiness = async (api: Harness): Promise<Readiness> =>
  (await (await api.request('/readyz')).json()) as Readiness

describe('without Redis', () => {
  it('acceptance goes on, quickly, and readiness says so; work without a row is refused', async () => {
    const redis = await startRedis()
    const api = await startHarness({ redisUrl: redis.url })
    try {
      expect((await api.post(good)).status).toBe(202)
      await redis.kill()
      for (let round = 0; round < 5; round++) {
        const { ms, result } = await timed(() =>
          api.post(good, round > 2 ? { 'idempotency-key': `k${round}` } : {}),
        )
        expect(result.status).toBe(202)
        expect(ms).toBeLessThan(2_000)
      }
      expect(await api.count()).toBe(6)
      expect(await readiness(api)).toMatchObject({
        ready: true,
        checks: { postgres: 'ok', queue: expect.stringContaining('QUEUE_UNAVAILABLE') },
      })
      const { ms, result } = await timed(() => api.post({ name: 'ping', payload: 1 }))
      expect([result.status, (await problem(result)).code]).toEqual([503, 'QUEUE_UNAVAILABLE'])
      expect(ms).toBeLessThan(2_000)
      // What could not be handed over is marked for the reconciler.
      await expect
        .poll(async () => {
          const { rows } = await api.postgres.query<{ n: number }>(
            'SELECT count(*)::int AS n FROM jobs WHERE NOT queued',
          )
          return rows[0]?.n
        })
        .toBeGreaterThanOrEqual(4)
    } finally {
      await api.close()
    }
  })

  it('that hangs instead of failing, acceptance goes on too', async () => {
    const redis = await startRedis()
    const api = await startHarness({ redisUrl: redis.url })
    try {
      await redis.freeze(true)
      const answers = await timed(() => Promise.all(Array.from({ length: 20 }, () => api.post(good))))
      expect(answers.result.map((each) => each.status)).toEqual(answers.result.map(() => 202))
      // Its client waits for five seconds.
      expect(answers.ms).toBeLessThan(4_000)
    } finally {
      await redis.freeze(false)
      await api.close()
    }
  })
})

describe('without Postgres', () => {
  it('answers 503 with Retry-After at once, takes nothing half, and goes on when it is back', async () => {
    const server = await startPostgres()
    await migrate(server.url)
    const api = await startHarness({ databaseUrl: server.url })
    try {
      let taken = 0
      const take = async (): Promise<number> => {
        const { status } = await api.post(good)
        if (status === 202) taken++
        return status
      }
      expect(await take()).toBe(202)
      await server.kill()
      // Its processes may still answer for a moment after their master is gone.
      await expect.poll(take).toBe(503)
      const requests: [string, () => Promise<Response>][] = [
        ['take', () => api.post(good)],
        ['take a batch', () => api.post([good, good])],
        ['take once', () => api.post(good, { 'idempotency-key': 'k' })],
        ['read', () => api.request('/v1/jobs/00000000-0000-7000-8000-000000000000', { key: viewer })],
        ['list', () => api.request('/v1/jobs', { key: viewer })],
      ]
      for (const [what, send] of requests) {
        const { ms, result } = await timed(send)
        const retryAfter = Number(result.headers.get('retry-after'))
        const { status, code } = await problem(result)
        expect({ what, status, code, retryAfter }).toMatchObject({
          what,
          status: 503,
          code: 'DATABASE_UNAVAILABLE',
        })
        expect(retryAfter).toBeGreaterThan(0)
        expect(ms).toBeLessThan(2_000)
      }
      expect((await api.request('/readyz')).status).toBe(503)
      expect((await readiness(api)).checks.postgres).toBe('DATABASE_UNAVAILABLE')
      expect((await api.request('/livez')).status).toBe(200)
      expect((await api.request('/metrics', { key: viewer })).status).toBe(200)
      await server.restart()
      await expect.poll(take, { timeout: 30_000 }).toBe(202)
      expect(await api.count()).toBe(taken)
      await expect.poll(async () => (await readiness(api)).ready).toBe(true)
    } finally {
      await api.close()
    }
  })
})

describe('with too much work', () => {
  it('refuses before the body is read, and tells when to come again', async () => {
    const api = await startHarness({ overload: { backlog: 0 } })
    try {
      const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
      let text = ''
      socket.on('data', (chunk) => (text += String(chunk)))
      await once(socket, 'connect')
      // The body is announced and never sent: whoever waits for it does not answer.
      socket.write(
        `POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${producer}\r\n` +
          'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n',
      )
      await expect.poll(() => text).toContain('"code":"OVERLOADED"')
      expect(text).toMatch(/^HTTP\/1.1 503/)
      expect(text.toLowerCase()).toMatch(/retry-after: [123]\r\n/)
      socket.destroy()
      // Who only reads is served.
      expect((await api.request('/v1/jobs', { key: viewer })).status).toBe(200)
      expect(await api.count()).toBe(0)
    } finally {
      await api.close()
    }
  })

  it('gives a client that sends too slowly its time and no more', async () => {
    const api = await startHarness({ limits: { bodyMs: 200 } })
    try {
      const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
      let text = ''
      socket.on('data', (chunk) => (text += String(chunk)))
      const closed = once(socket, 'close')
      await once(socket, 'connect')
      socket.write(
        `POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${producer}\r\n` +
          'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"na',
      )
      await closed
      expect(text).toMatch(/^HTTP\/1.1 408/)
      expect(text).toContain('REQUEST_TIMED_OUT')
      expect(await api.count()).toBe(0)
    } finally {
      await api.close()
    }
  })
})
