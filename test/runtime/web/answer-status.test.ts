import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import type { FastifyPluginAsync } from 'fastify'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { eventually } from '../../support/processes.ts'
import { type Harness, operator, startHarness } from './web-harness.ts'

let api: Harness
let asked = Promise.withResolvers<void>()
const routes: FastifyPluginAsync = async (server) => {
  server.get('/never', () => {
    asked.resolve()
    return new Promise(() => undefined)
  })
  server.get('/large', async () => {
    asked.resolve()
    return 'x'.repeat(30_000_000)
  })
  server.get('/stream', (_request, reply) => {
    reply.hijack()
    reply.raw.writeHead(200, { 'content-type': 'text/event-stream' })
    reply.raw.write(': here\n\n')
    asked.resolve()
  })
}
beforeAll(async () => {
  api = await startHarness({ plugins: [routes] })
})
afterAll(() => api.close())

async function ask(path: string): Promise<Socket> {
  asked = Promise.withResolvers()
  const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
  onTestFinished(() => void socket.destroy())
  await once(socket, 'connect')
  socket.pause().write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
  await asked.promise
  return socket
}

/** What the log and the metrics say of the answers of a route. */
async function toldOf(route: string): Promise<{ logged: unknown[]; counted: string[] }> {
  const metrics = await (await api.request('/metrics', { key: operator })).text()
  const logged = api.lines.map((line) => JSON.parse(line) as Record<string, unknown>)
  return {
    logged: logged
      .filter((line) => line['route'] === route && line['msg'] === 'Answered')
      .map(({ status }) => status),
    counted: metrics
      .split('\n')
      .filter((line) => line.startsWith('baton_http_request_duration_seconds_count'))
      .filter((line) => line.includes(`route="${route}"`))
      .map((line) => `${/status="(\d+)"/.exec(line)?.[1]} ${line.split(' ').at(-1)}`),
  }
}

it.each([
  ['/never', 499],
  ['/large', 499],
  // A stream has no other end.
  ['/stream', 200],
])('counts an answer of %s whose client has gone as %d, once', async (route, status) => {
  const socket = await ask(route)
  socket.destroy()
  await eventually(async () =>
    expect(await toldOf(route)).toEqual({ logged: [status], counted: [`${status} 1`] }),
  )
})

it('counts what was answered whole as what it was, once', async () => {
  expect((await api.request('/livez')).status).toBe(200)
  expect((await api.request('/nowhere')).status).toBe(404)
  await eventually(async () => {
    expect(await toldOf('/livez')).toEqual({ logged: [200], counted: ['200 1'] })
    expect(await toldOf('unknown')).toEqual({ logged: [404], counted: ['404 1'] })
  })
})
