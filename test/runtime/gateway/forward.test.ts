import { once } from 'node:events'
import { Agent, createServer, get, type IncomingMessage, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, it, onTestFinished } from 'vitest'
import { forward, type Outcome } from '../../../src/runtime/gateway/forward.ts'
import { answerHeaders, requestHeaders } from '../../../src/runtime/gateway/headers.ts'
import { freePort } from '../../support/processes.ts'

async function serve(listener: (...exchange: Parameters<RequestListener>) => unknown): Promise<number> {
  const server = createServer((request, response) => void listener(request, response)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** A server that passes each request on to the ports, one after the other until one is reached. */
async function passTo(
  ports: number[],
  outcomes: Outcome[],
  { agent, onStream = () => undefined }: { agent?: Agent; onStream?(close: () => void): void } = {},
): Promise<string> {
  const origin = { for: '', proto: 'http', host: 'x', secure: false, trusted: true }
  const port = await serve(async (request, response) => {
    for (const each of ports) {
      const outcome = await forward({
        request,
        response,
        path: request.url ?? '/',
        headers: requestHeaders(request, { origin, requestId: 'id', cookies: undefined }),
        to: { port: each, ...(agent ? { agent } : {}) },
        answerHeaders: (answer) => answerHeaders(answer, 'id', []),
        onStream: ({ close }) => {
          onStream(close)
          return () => undefined
        },
      })
      outcomes.push(outcome)
      if (outcome !== 'unreached') break
    }
    if (!response.headersSent) response.writeHead(502).end()
  })
  return `http://127.0.0.1:${port}`
}

it('reads nothing of a body before somebody is there to take it, so it can go elsewhere whole', async () => {
  const port = await serve(async (request, response) => void response.end(await text(request)))
  const outcomes: Outcome[] = []
  const url = await passTo([await freePort(), await freePort(), port], outcomes)
  const body = 'x'.repeat(300_000)
  const answer = await fetch(url, { method: 'POST', body })
  expect(await answer.text()).toBe(body)
  expect(outcomes).toEqual(['unreached', 'unreached', 'over'])
})

it('sends a request again over a new connection when a kept one was closed, but not one that may change something', async () => {
  const methods: (string | undefined)[] = []
  const used = new WeakSet()
  const port = await serve((request, response) => {
    methods.push(request.method)
    // As a server that closes an idle connection in the moment in which a request is on its way.
    if (used.has(request.socket)) return void request.socket.destroy()
    used.add(request.socket)
    response.end('ok')
  })
  const outcomes: Outcome[] = []
  const agent = new Agent({ keepAlive: true })
  onTestFinished(() => agent.destroy())
  const url = await passTo([port], outcomes, { agent })
  expect(await (await fetch(url)).text()).toBe('ok')
  expect(await (await fetch(url)).text()).toBe('ok')
  expect(await (await fetch(url)).text()).toBe('ok')
  expect((await fetch(url, { method: 'POST', body: 'x' })).status).toBe(502)
  expect(methods).toEqual(['GET', 'GET', 'GET', 'GET', 'POST'])
  expect(outcomes).toEqual(['over', 'over', 'over', 'broke-off'])
})

it('ends an event stream only when its reader has all that was sent', async () => {
  const event = `data: ${'x'.repeat(1_000)}\n\n`
  const sent = event.repeat(30_000)
  const port = await serve((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    // More than all buffers on the way hold, and then it has nothing more to say, and stays.
    response.write(sent)
  })
  const { promise: streaming, resolve } = Promise.withResolvers<() => void>()
  const url = await passTo([port], [], { onStream: resolve })
  const request = get(url)
  const [answer] = (await once(request, 'response')) as [IncomingMessage]
  const close = await streaming
  // Nobody has read anything yet, nor does so for longer than a lull takes.
  close()
  await pause(150)
  const said = await text(answer)
  expect(said.slice(0, sent.length) === sent).toBe(true)
  expect(said.slice(sent.length)).toMatch(/^retry: \d+\n\n$/)
})
