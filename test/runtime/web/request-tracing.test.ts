import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'
import Fastify from 'fastify'
import { expect, it, onTestFinished } from 'vitest'
import type { Tracing } from '../../../src/platform/tracing.ts'
import { addRequestTracing } from '../../../src/runtime/web/request-tracing.ts'
import { eventually } from '../../support/processes.ts'

async function start(answer: () => Promise<unknown>) {
  const ended: unknown[] = []
  const tracing: Tracing = {
    begin: (name) => ({
      traceparent: '',
      end: (attributes, error) => void ended.push([name, attributes, error]),
    }),
    close: async () => undefined,
  }
  const server = Fastify()
  addRequestTracing(server, tracing)
  server.get('/v1/jobs', { config: { roles: [] } }, answer)
  await server.listen({ port: 0, host: '127.0.0.1' })
  onTestFinished(() => server.close())
  return { ended, port: (server.server.address() as AddressInfo).port }
}

it('ends the span of a request with its answer', async () => {
  const { ended, port } = await start(async () => ({}))
  await (await fetch(`http://127.0.0.1:${port}/v1/jobs`)).text()
  await eventually(() =>
    expect(ended).toEqual([['GET /v1/jobs', { 'http.response.status_code': 200 }, undefined]]),
  )
})

it('ends the span of a request whose client has gone, as failed: what it caused would have no parent', async () => {
  const asked = Promise.withResolvers<void>()
  const { ended, port } = await start(() => {
    asked.resolve()
    return new Promise(() => undefined)
  })
  const client = connect(port, '127.0.0.1')
  await once(client, 'connect')
  client.write('GET /v1/jobs HTTP/1.1\r\nhost: localhost\r\n\r\n')
  await asked.promise
  client.destroy()
  await eventually(() => expect(ended).toEqual([['GET /v1/jobs', {}, 'the client has gone']]))
})
