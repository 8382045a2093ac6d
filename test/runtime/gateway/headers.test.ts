import type { IncomingMessage } from 'node:http'
import { describe, expect, it } from 'vitest'
import { originOf, requestHeaders } from '../../../src/runtime/gateway/headers.ts'

const given = {
  host: 'inner.example',
  'x-forwarded-for': '203.0.113.9, 198.51.100.7',
  'x-forwarded-proto': 'https',
  'x-forwarded-host': 'shop.example',
  forwarded: 'for=203.0.113.9',
}

const requestFrom = (remoteAddress: string, headers: Record<string, string> = given): IncomingMessage =>
  ({
    socket: { remoteAddress },
    headers,
    rawHeaders: Object.entries(headers).flat(),
    method: 'GET',
  }) as unknown as IncomingMessage

const sent = (request: IncomingMessage): Record<string, string | undefined> => {
  const flat = requestHeaders(request, { origin: originOf(request), requestId: 'id', cookies: undefined })
  return Object.fromEntries(
    flat.flatMap((name, at) => (at % 2 === 0 ? [[name.toLowerCase(), flat[at + 1]]] : [])),
  )
}

describe('what a peer says of its client', () => {
  it.each([
    '10.1.2.3',
    '172.31.0.1',
    '192.168.1.1',
    '127.0.0.1',
    '::ffff:10.0.0.1',
    '::1',
    'fd00::1',
    '100.64.0.1',
  ])('is believed of a router: %s', (peer) => {
    const { host, forwarded, ...rest } = given
    expect(sent(requestFrom(peer))).toMatchObject({ ...rest, host, forwarded })
    expect(originOf(requestFrom(peer)).secure).toBe(true)
  })

  it.each(['203.0.113.1', '172.32.0.1', '2001:db8::1', '::ffff:198.51.100.1', '100.128.0.1'])(
    'is not believed of anybody else: %s',
    (peer) => {
      const headers = sent(requestFrom(peer))
      expect(headers).toMatchObject({
        'x-forwarded-for': peer.replace('::ffff:', ''),
        'x-forwarded-proto': 'http',
        'x-forwarded-host': 'inner.example',
      })
      expect(headers['forwarded']).toBeUndefined()
      expect(originOf(requestFrom(peer)).secure).toBe(false)
    },
  )

  it('is made when nothing was said', () => {
    expect(sent(requestFrom('10.0.0.1', { host: 'a' }))).toEqual({
      host: 'a',
      'x-forwarded-for': '10.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': 'a',
      'x-request-id': 'id',
    })
  })
})

it('sends one Host, and a length where a body could be expected', () => {
  const post = {
    socket: { remoteAddress: '10.0.0.1' },
    headers: { host: 'a' },
    method: 'POST',
    rawHeaders: ['Host', 'a', 'host', 'b'],
  } as unknown as IncomingMessage
  const flat = requestHeaders(post, { origin: originOf(post), requestId: 'id', cookies: 'c=d' })
  expect(flat.filter((text) => text.toLowerCase() === 'host')).toEqual(['Host'])
  expect(flat.slice(-2)).toEqual(['Content-Length', '0'])
  expect(flat).toEqual(expect.arrayContaining(['Cookie', 'c=d']))
})
