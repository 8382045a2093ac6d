import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import {
  createSiteClient,
  refusalOf,
  type SiteClient,
} from '../../../src/platform/replication/site-client.ts'
import { atEndOfTest } from '../../support/processes.ts'

const key = 'operator-key-of-the-other-site'

async function answering(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<{ client: SiteClient; url: string }> {
  const server = createServer(answer)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  atEndOfTest(async () => {
    server.closeAllConnections()
    server.close()
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url,
    client: createSiteClient({ url: `${url}/`, key, clock: createSystemClock(), timeoutMs: 400 }),
  }
}

const json = (request: IncomingMessage, response: ServerResponse, body: string, status = 200): void => {
  response.writeHead(status, {
    'content-type': 'application/json',
    'x-request-id': String(request.headers['x-request-id']),
  })
  response.end(body)
}

const failure = async (client: SiteClient, options = {}): Promise<Error & { code: string }> =>
  client.post('/x', {}, options).then(
    () => {
      throw new Error('it did not fail')
    },
    (error: unknown) => error as Error & { code: string },
  )

describe('the client of another site', () => {
  it('posts JSON with the key, and gives the answer', async () => {
    const { client } = await answering((request, response) => {
      expect(request.headers.authorization).toBe(`Bearer ${key}`)
      json(request, response, '{"a":1}')
    })
    expect(await client.post('/x', { b: 2 })).toEqual({ a: 1 })
  })

  it('streams an upload', async () => {
    let size = 0
    const { client } = await answering((request, response) => {
      request.on('data', (chunk: Buffer) => (size += chunk.length))
      request.on('end', () => json(request, response, '{}'))
    })
    const chunks = Array.from({ length: 50 }, () => Buffer.alloc(100_000))
    await client.put('/x', { bytes: Readable.from(chunks), headers: {} }, { timeoutMs: 10_000 })
    expect(size).toBe(5_000_000)
  })

  it('gives up a site that does not answer in time', async () => {
    const { client } = await answering(() => undefined)
    const error = await failure(client)
    expect(error).toMatchObject({ code: 'SITE_UNREACHABLE' })
    expect(error.message).toContain('did not answer within 400 ms')
  })

  it('names a site that is not there', async () => {
    const client = createSiteClient({ url: 'http://127.0.0.1:1', key, clock: createSystemClock() })
    expect(await failure(client)).toMatchObject({ code: 'SITE_UNREACHABLE' })
  })

  it.each<[string, (request: IncomingMessage, response: ServerResponse) => void, RegExp]>([
    [
      'a page for people',
      (_request, response) =>
        response.writeHead(200, { 'content-type': 'text/html' }).end('<html>hello</html>'),
      /of the type text\/html/,
    ],
    ['rubbish', (request, response) => json(request, response, '{"a":'), /no JSON/],
    [
      'an answer to another request',
      (_request, response) =>
        response.writeHead(200, { 'content-type': 'application/json', 'x-request-id': 'other' }).end('{}'),
      /does not bear the id/,
    ],
    [
      'too much',
      (request, response) => json(request, response, JSON.stringify({ a: 'x'.repeat(5_000) })),
      /over 1000 bytes/,
    ],
    [
      'a redirect, which would take the key elsewhere',
      (_request, response) => response.writeHead(302, { location: 'http://127.0.0.1:9/' }).end(),
      /answers 302/,
    ],
  ])('refuses %s', async (_what, answer, reason) => {
    const { client } = await answering(answer)
    const error = await failure(client, { maxBytes: 1_000 })
    expect(error).toMatchObject({ code: 'SITE_ANSWER_INVALID' })
    expect(error.message).toMatch(reason)
  })

  it('reads a refusal with its values and its Retry-After, and tells no key', async () => {
    const { client } = await answering((_request, response) => {
      response.writeHead(409, { 'content-type': 'application/problem+json', 'retry-after': '7' })
      const errors = [{ path: '/cursor', message: '12' }]
      response.end(JSON.stringify({ code: 'SYNC_CURSOR', detail: 'It stands elsewhere.', errors }))
    })
    const error = await failure(client)
    expect(refusalOf(error)).toEqual({
      status: 409,
      code: 'SYNC_CURSOR',
      detail: 'It stands elsewhere.',
      values: { cursor: '12' },
      retryAfterMs: 7_000,
    })
    expect(error).toMatchObject({ code: 'SITE_REFUSED', retryAfterMs: 7_000 })
    expect(`${error.message}${error.stack ?? ''}`).not.toContain(key)
  })

  it('takes an endless refusal for no answer', async () => {
    const { client } = await answering((_request, response) => {
      response.writeHead(500, { 'content-type': 'text/plain' })
      const timer = setInterval(() => response.write('x'.repeat(20_000)), 1)
      response.on('close', () => clearInterval(timer))
    })
    expect(await failure(client, { timeoutMs: 5_000 })).toMatchObject({ code: 'SITE_ANSWER_INVALID' })
  })
})
