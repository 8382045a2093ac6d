import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, rmdir } from 'node:fs/promises'
import { type IncomingMessage, request as open } from 'node:http'
import { connect, type Socket } from 'node:net'
import { buffer, text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { pinCookie } from '../../../src/runtime/gateway/pin.ts'
import { type GatewaySite, openBrowser, openGateway } from '../../support/gateway-site.ts'
import { eventually } from '../../support/processes.ts'

let site: GatewaySite

beforeAll(async () => {
  site = await openGateway()
  await site.start()
})
afterAll(() => site.close())

interface Told {
  revision: string
  headers: Record<string, string>
}
const ask = async (headers: Record<string, string> = {}): Promise<Told> =>
  (await fetch(`${site.url}/`, { headers })).json() as Promise<Told>
const counts = async (): Promise<{ begun: Record<string, number>; aborted: number }> =>
  (await fetch(`${site.url}/counts`)).json() as Promise<{ begun: Record<string, number>; aborted: number }>

/** A connection on which requests are written by hand. */
async function openRaw(): Promise<{ socket: Socket; said(): string; closed: Promise<unknown> }> {
  const socket = connect(site.port, '127.0.0.1')
  onTestFinished(() => void socket.destroy())
  let said = ''
  socket.on('data', (chunk) => (said += chunk.toString('latin1')))
  socket.on('error', () => undefined)
  const closed = once(socket, 'close')
  await once(socket, 'connect')
  return { socket, said: () => said, closed }
}

/** A request by node:http, which can be left in the middle. @returns the answer's head */
function begin(path: string, method = 'GET', headers: Record<string, string> = {}) {
  const request = open({ host: '127.0.0.1', port: site.port, path, method, headers, agent: false })
  request.on('error', () => undefined)
  onTestFinished(() => void request.destroy())
  if (method === 'GET') request.end()
  const answer = new Promise<IncomingMessage>((resolve) => request.once('response', resolve))
  return { request, answer }
}

describe('headers', () => {
  it('tell the target who asked, by which host and how, under which id', async () => {
    const { headers } = await ask()
    expect(headers).toMatchObject({
      host: `127.0.0.1:${site.port}`,
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': `127.0.0.1:${site.port}`,
      'x-request-id': expect.stringMatching(/^[0-9a-f]+-\w+$/) as string,
    })
  })

  it('of a router on a private address are believed, as the last of a chain too', async () => {
    const given = {
      'x-forwarded-for': '203.0.113.9',
      'x-forwarded-proto': 'https',
      'x-forwarded-host': 'shop.example',
    }
    expect((await ask({ ...given, 'x-request-id': 'from-the-router' })).headers).toMatchObject({
      ...given,
      'x-request-id': 'from-the-router',
    })
  })

  it('may come without a host by HTTP/1.0, as health checks do', async () => {
    const { socket, said, closed } = await openRaw()
    socket.write('GET / HTTP/1.0\r\n\r\n')
    await closed
    expect(said()).toMatch(/^HTTP\/1.1 200 OK/)
  })

  it('of an answer may be larger than those of a request', async () => {
    // By hand: fetch itself takes no more than 16 KiB.
    const { socket, said, closed } = await openRaw()
    socket.write('GET /large-header HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    await closed
    expect(said()).toMatch(/^HTTP\/1.1 200 OK/)
    expect(said().match(/a=x{3000}/g)).toHaveLength(15)
  })

  it('that are for the next hop alone, or for us, are not passed on in either direction', async () => {
    const { socket, said } = await openRaw()
    socket.write(
      `GET / HTTP/1.1\r\nHost: x\r\nConnection: close, X-Private, Cookie\r\nX-Private: 1\r\nTE: trailers\r\n` +
        `Proxy-Authorization: Basic eA==\r\nCookie: a=b; ${pinCookie}=forged\r\nKeep-Alive: timeout=1\r\n\r\n`,
    )
    await once(socket, 'close')
    const { headers } = JSON.parse(said().slice(said().indexOf('\r\n\r\n') + 4)) as Told
    expect(Object.keys(headers)).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(te|proxy-authorization|x-private|keep-alive)$/)]),
    )
    // Nobody can take a cookie away by naming it in Connection.
    expect(headers['cookie']).toBe('a=b')
    const { headers: back } = await fetch(`${site.url}/hop`)
    expect(back.get('x-private')).toBeNull()
    expect(back.get('keep-alive')).not.toBe('timeout=1')
  })

  it('say 502 and 503 in the form of all of Baton', async () => {
    const answer = await fetch(`${site.url}/drop`, { method: 'POST', body: 'x' })
    expect(answer.status).toBe(502)
    expect(answer.headers.get('content-type')).toContain('application/problem+json')
    expect(await answer.json()).toMatchObject({
      code: 'TARGET_BROKE_OFF',
      requestId: answer.headers.get('x-request-id'),
    })
    // Once: it may have had an effect.
    expect((await counts()).begun['/drop']).toBe(1)
  })
})

describe('a request that gets no answer', () => {
  it('is sent again when it changes nothing: at once when the connection was old, once more when it was new', async () => {
    // One that is kept.
    await ask()
    const answer = await fetch(`${site.url}/drop-twice`)
    expect(await answer.text()).toBe('third')
    expect((await counts()).begun['/drop-twice']).toBe(3)
  })

  it('is not sent again for ever', async () => {
    const before = (await counts()).begun['/drop'] ?? 0
    expect((await fetch(`${site.url}/drop`)).status).toBe(502)
    expect((await counts()).begun['/drop']).toBe(before + 3)
  })
})

describe('bodies', () => {
  it('go through as they are, in both directions', async () => {
    const body = randomBytes(3_000_000)
    const { request, answer } = begin('/echo', 'POST', { 'transfer-encoding': 'chunked' })
    request.end(body)
    expect((await buffer(await answer)).equals(body)).toBe(true)
    const measured = await fetch(`${site.url}/echo`, { method: 'PUT', body })
    expect(Buffer.from(await measured.arrayBuffer()).equals(body)).toBe(true)
  })

  it('go through as they come: the answer begins before the request has ended', async () => {
    const { request, answer } = begin('/echo', 'POST', { 'transfer-encoding': 'chunked' })
    request.write('first')
    const chunks = (await answer)[Symbol.asyncIterator]()
    expect(String((await chunks.next()).value)).toBe('first')
    request.end('second')
    expect(String((await chunks.next()).value)).toBe('second')
  })

  it('that nobody wants do not keep the answer back', async () => {
    const { request, answer } = begin('/refuse-upload', 'POST', { 'content-length': '1000000000' })
    request.write(Buffer.alloc(100_000))
    const { statusCode, headers } = await answer
    expect(statusCode).toBe(413)
    expect(headers.connection).toBe('close')
  })

  it('of which the target sends half are not taken for whole', async () => {
    await expect(fetch(`${site.url}/half-answer`).then((answer) => answer.text())).rejects.toThrow(
      'terminated',
    )
  })
})

describe('a client that goes away', () => {
  it.each(['/slow?ms=60000', '/events'])(
    'ends its request to the target: %s',
    async (path) => {
      const { aborted, begun } = await counts()
      const name = path.split('?')[0] ?? ''
      const { request, answer } = begin(path)
      await eventually(async () => expect((await counts()).begun[name]).toBe((begun[name] ?? 0) + 1))
      if (path === '/events') await answer
      request.destroy()
      await eventually(async () => expect((await counts()).aborted).toBe(aborted + 1), { timeoutMs: 10_000 })
      await eventually(async () => {
        const { streams } = (await site.target('one')) ?? {}
        expect(streams).toBe(0)
      })
    },
    30_000,
  )
})

describe('an event stream', () => {
  it('begins before there is an event', async () => {
    const { answer } = begin('/events?silent')
    expect((await answer).headers['content-type']).toBe('text/event-stream')
  })
})

describe('what is no proper request', () => {
  it.each([
    [
      'two lengths',
      'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      400,
    ],
    ['no HTTP', 'hello\r\n\r\n', 400],
    ['too many headers', `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, 431],
  ])('is refused here: %s', async (_what, bytes, status) => {
    const before = (await counts()).begun['/'] ?? 0
    const { socket, said, closed } = await openRaw()
    socket.write(bytes)
    await closed
    expect(said()).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
    expect(said()).toContain('application/problem+json')
    expect((await counts()).begun['/'] ?? 0).toBe(before)
  })
})

describe('what Node would not write', () => {
  it.each([
    ['in a header', 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Odd: a\x7fb\r\n\r\n', 400],
    ['in a path', 'GET /\x7f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 400],
    ['in an answer', 'GET /odd-header HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 502],
    ['in a status', 'GET /odd-status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 502],
  ])('does not end the gateway: %s', async (_what, bytes, status) => {
    const { socket, said, closed } = await openRaw()
    socket.write(bytes, 'latin1')
    await closed
    expect(said()).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
    expect((await ask()).revision).toBe('one')
  })
})

describe('the pin', () => {
  it('is given to browsers, not to those who bring no cookie and want no page, nor with what caches share', async () => {
    const cookieOf = async (path: string, headers: Record<string, string>): Promise<string | undefined> =>
      (await fetch(site.url + path, { headers })).headers
        .getSetCookie()
        .find((each) => each.startsWith(pinCookie))
    expect(await cookieOf('/', { accept: 'application/json' })).toBeUndefined()
    expect(await cookieOf('/', { accept: 'text/html,*/*' })).toMatch(/HttpOnly; SameSite=Lax$/)
    expect(await cookieOf('/', { cookie: 'a=b' })).toBeDefined()
    expect(await cookieOf('/', { accept: 'text/html', 'x-forwarded-proto': 'https' })).toMatch(/Secure$/)
    expect(await cookieOf('/shared', { accept: 'text/html' })).toBeUndefined()
  })

  it('that was forged is ignored and replaced', async () => {
    const browser = openBrowser(site.url)
    await browser.get('/')
    const good = browser.cookie
    browser.cookie = `${good.slice(0, -5)}${good.at(-5) === 'A' ? 'B' : 'A'}${good.slice(-4)}`
    await browser.get('/')
    expect(browser.movedFrom).toBeNull()
    expect(browser.cookie).not.toBe(good)
    const replaced = browser.cookie
    await browser.get('/')
    expect(browser.cookie).toBe(replaced)
  })

  it('ends when the target says so', async () => {
    const browser = openBrowser(site.url)
    const before = (await site.target('one'))?.sessions ?? 0
    await browser.get('/')
    expect((await site.target('one'))?.sessions).toBe(before + 1)
    const answer = await browser.get('/log-out')
    expect(answer.headers.get('x-session-ended')).toBeNull()
    expect(browser.cookie).toBe('')
    expect((await site.target('one'))?.sessions).toBe(before)
  })
})

describe('a WebSocket', () => {
  const handshake = (path: string): string =>
    `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n` +
    'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n'

  it('carries messages, and each end is the end of the other', async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${site.port}/socket`)
    await once(socket, 'open')
    socket.send('hello')
    const [message] = (await once(socket, 'message')) as [{ data: string }]
    expect(message.data).toBe('one:hello')
    expect((await site.target('one'))?.streams).toBe(1)
    socket.close()
    await once(socket, 'close')
    await eventually(async () => expect((await site.target('one'))?.streams).toBe(0))
  })

  it('ends with its client, though the target takes no note of it', async () => {
    const { socket, closed } = await openRaw()
    socket.write(handshake('/socket'))
    await eventually(async () => expect((await site.target('one'))?.streams).toBe(1))
    socket.end()
    await closed
    await eventually(async () => expect((await site.target('one'))?.streams).toBe(0))
  })

  it('that the target refuses is answered as it says', async () => {
    const { socket, said, closed } = await openRaw()
    socket.write(handshake('/no-socket'))
    await closed
    expect(said()).toMatch(/^HTTP\/1.1 403 Forbidden\r\n[^]*no$/)
  })

  it('is the only upgrade: any other is a request like all', async () => {
    const { socket, said, closed } = await openRaw()
    socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n')
    await closed
    expect(said()).toMatch(/^HTTP\/1.1 200 OK/)
  })
})

describe('its own paths', () => {
  it('are not those of the application', async () => {
    expect(await (await fetch(`${site.url}/livez`)).text()).toBe('alive')
    expect(await (await fetch(`${site.url}/.gateway/livez`)).json()).toEqual({ status: 'alive' })
    expect(await (await fetch(`${site.url}/.gateway/readyz`)).json()).toMatchObject({ ready: true })
    const unknown = await fetch(`${site.url}/.gateway/metrics`)
    expect(unknown.status).toBe(404)
    expect(await unknown.json()).toMatchObject({ code: 'GATEWAY_PATH_UNKNOWN' })
  })

  it('show metrics on the control socket', async () => {
    const request = open({ socketPath: `${site.folder}/g.sock`, path: '/metrics' })
    request.end()
    const [answer] = (await once(request, 'response')) as [IncomingMessage]
    const lines = (await text(answer)).split('\n')
    expect(lines).toContain('baton_gateway_targets{state="current"} 1')
    expect(
      lines.find((line) => line.startsWith('baton_gateway_requests_total{outcome="over"}')),
    ).toBeDefined()
  })
})

it('goes on as before when an upgrade cannot be written down, and says why', async () => {
  // Whoever is root may write everywhere, but not into a folder as if it were a file.
  const inTheWay = `${site.folder}/g.json.next`
  await mkdir(inTheWay)
  await expect(site.upgrade('two')).rejects.toMatchObject({
    code: 'GATEWAY_STATE_UNWRITABLE',
    message: expect.stringContaining('EISDIR') as string,
  })
  await rmdir(inTheWay)
  expect(await ask()).toMatchObject({ revision: 'one' })
  expect((await site.status()).targets).toHaveLength(1)
})
