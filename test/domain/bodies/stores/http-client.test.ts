import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { createSystemClock } from '../../../../src/core/clock.ts'
import { codeOf } from '../../../../src/core/errors.ts'
import {
  createHttpClient,
  discard,
  type HttpExchange,
} from '../../../../src/domain/bodies/stores/http-client.ts'
import { createMetrics } from '../../../../src/platform/metrics.ts'

const timeoutMs = 800

/** A server whose answer the test chooses, and a client whose clock it moves. */
async function open() {
  const seen: string[] = []
  const closed: number[] = []
  let answer = (_request: IncomingMessage, response: ServerResponse): unknown => response.end('fine')
  const server = createServer((request, response) => {
    seen.push(request.url ?? '')
    request.resume()
    answer(request, response)
  })
  server.on('connection', (socket) => socket.once('close', () => closed.push(1)))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const system = createSystemClock()
  let aheadMs = 0
  const metrics = createMetrics()
  const client = createHttpClient({
    store: 'there',
    origin: new URL(`http://127.0.0.1:${port}`),
    clock: { ...system, monotonicMs: () => system.monotonicMs() + aheadMs },
    timeoutMs,
    maxConnections: 8,
    metrics,
  })
  onTestFinished(async () => {
    client.close()
    server.closeAllConnections()
    server.close()
    await once(server, 'close').catch(() => undefined)
  })
  return {
    seen,
    closed,
    metrics,
    server,
    answers: (work: typeof answer) => (answer = work),
    later: (ms: number) => (aheadMs += ms),
    ask: async (exchange: Partial<HttpExchange> = {}): Promise<number | string> => {
      try {
        const reply = await client.send({ method: 'GET', path: '/x', headers: {}, ...exchange })
        await discard(reply)
        return reply.statusCode ?? 0
      } catch (error) {
        return codeOf(error) ?? String(error)
      }
    },
  }
}

const times = async <T>(count: number, work: () => Promise<T>): Promise<T[]> => {
  const all: T[] = []
  for (let n = 0; n < count; n++) all.push(await work())
  return all
}

describe('a store that is away', () => {
  it('costs one deadline, not one for each request, and is asked by one when it may be back', async () => {
    const { answers, ask, seen, later, metrics } = await open()
    answers(() => undefined)
    const begunMs = performance.now()
    expect(await times(200, () => ask())).toEqual(['BODY_TIMEOUT', ...Array(199).fill('BODY_UNAVAILABLE')])
    expect(performance.now() - begunMs).toBeLessThan(timeoutMs * 4)
    expect(seen).toHaveLength(1)
    expect(await metrics.text()).toMatch(/baton_body_store_refusals_total\{store="there"\} 199/)
    // Still away: one finds that out, the others do not wait with it.
    later(5_000)
    expect(
      (await Promise.all(Array.from({ length: 8 }, () => ask()))).toSorted((a, b) =>
        String(a).localeCompare(String(b)),
      ),
    ).toEqual(['BODY_TIMEOUT', ...Array(7).fill('BODY_UNAVAILABLE')])
    expect(seen).toHaveLength(2)
    answers((_request, response) => response.end('fine'))
    expect(await ask()).toBe('BODY_UNAVAILABLE')
    later(5_000)
    expect(await times(5, () => ask())).toEqual(Array(5).fill(200))
  })

  it('is known by three failures in a row, also those that a gateway tells of', async () => {
    const { answers, ask, seen } = await open()
    answers((_request, response) => response.writeHead(502).end())
    expect(await times(2, () => ask())).toEqual([502, 502])
    answers((_request, response) => response.end('fine'))
    expect(await ask()).toBe(200)
    answers((request) => request.socket.destroy())
    expect(await times(5, () => ask())).toEqual(Array(5).fill('BODY_UNAVAILABLE'))
    expect(seen).toHaveLength(6)
  })

  it('is not taken for away by what callers do, nor by refusals', async () => {
    const { answers, ask } = await open()
    const broken = async function* () {
      yield Buffer.from('x')
      throw new Error('the disk of the sender')
    }
    expect(await times(4, () => ask({ method: 'PUT', body: { size: 9, open: broken } }))).toEqual(
      Array(4).fill('BODY_UNAVAILABLE'),
    )
    answers(() => undefined)
    await times(4, () => ask({ signal: AbortSignal.timeout(20) }))
    answers((_request, response) => response.writeHead(507).end())
    expect(await times(4, () => ask())).toEqual(Array(4).fill(507))
  })
})

describe('the id of a request', () => {
  it('that comes back with another answer has that answer disbelieved and its connection closed', async () => {
    const { answers, ask, closed } = await open()
    const heard: string[] = []
    answers(({ headers }, response) => {
      heard.push(headers['x-request-id'] as string)
      response.setHeader('X-Request-Id', headers['x-request-id'] as string).end('mine')
    })
    expect(await times(2, () => ask({ shared: true }))).toEqual([200, 200])
    expect(new Set(heard).size).toBe(2)
    expect(closed).toHaveLength(0)
    answers((_request, response) => response.setHeader('X-Request-Id', heard[0] as string).end('yours'))
    expect(await ask({ shared: true })).toBe('BODY_UNAVAILABLE')
    await expect.poll(() => closed.length).toBe(1)
  })

  it('is not looked for in the numbers that a server gives by itself', async () => {
    const { answers, ask } = await open()
    let n = 0
    answers((_request, response) => response.setHeader('X-Request-Id', String(++n)).end('mine'))
    expect(await times(5, () => ask({ shared: true }))).toEqual(Array(5).fill(200))
  })
})
