import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Harness, operator, problem, producer, startHarness, viewer } from './web-harness.ts'

let api: Harness
beforeAll(async () => {
  api = await startHarness()
})
afterAll(() => api.close())

const good = { name: 'mail', payload: { to: 'a' } }

/** Sends it and makes sure that it left nothing behind. */
async function refused(
  send: () => Promise<Response>,
): Promise<{ status: number; code: string; paths: string[] }> {
  const before = await api.count()
  const response = await send()
  const { status, code, errors, requestId } = await problem(response)
  expect(status).toBe(response.status)
  expect(requestId).toBe(response.headers.get('x-request-id'))
  expect(await api.count()).toBe(before)
  return { status, code, paths: (errors ?? []).map((each) => each.path) }
}

describe('bad bodies are refused, and nothing is left of them', () => {
  it.each<[string, string | Uint8Array]>([
    ['nothing', ''],
    ['half of it', '{"name":"mail","payload":'],
    ['a trailing comma', '{"name":"mail","payload":{"to":"a"},}'],
    ['two documents', '{"name":"mail","payload":{"to":"a"}}{}'],
    ['no UTF-8', new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
  ])('%s', async (_what, body) => {
    expect(await refused(() => api.post(body))).toEqual({ status: 400, code: 'BODY_MALFORMED', paths: [] })
  })

  it.each<[string, string, string]>([
    [
      '__proto__ in the payload',
      '{"name":"any","payload":{"a":{"__proto__":{"admin":true}}}}',
      '/payload/a/__proto__',
    ],
    ['a number beyond a double', '{"name":"any","payload":{"n":1e999}}', '/payload/n'],
    ['an integer that would be rounded', '{"name":"any","payload":[9007199254740993]}', '/payload/0'],
    ['no name', '{"payload":{}}', '/name'],
    ['an empty array', '[]', ''],
    ['null', 'null', ''],
    ['a negative delay', '{"name":"mail","payload":{"to":"a"},"delayMs":-1}', '/delayMs'],
    ['an absurd instant', '{"name":"mail","payload":{"to":"a"},"runAt":"9999-12-31T00:00:00Z"}', '/runAt'],
    ['a NUL in the place of a name', '{"name":"mail\\u0000","payload":{}}', '/name'],
    ['an unknown property', '{"name":"mail","payload":{"to":"a"},"colour":"red"}', '/colour'],
  ])('%s', async (_what, body, path) => {
    const { status, paths } = await refused(() => api.post(body))
    expect([400, 404]).toContain(status)
    expect(paths).toContain(path)
  })

  it('nesting bombs, also as an array of jobs', async () => {
    for (const levels of [100, 10_000, 200_000]) {
      const bomb = `{"name":"any","payload":${'['.repeat(levels)}${']'.repeat(levels)}}`
      expect((await refused(() => api.post(bomb))).code).toBe('INPUT_INVALID')
      expect((await refused(() => api.post('['.repeat(levels) + ']'.repeat(levels)))).status).toBe(400)
    }
  })

  it('every fault of a payload at once', async () => {
    const { code, paths } = await refused(() =>
      api.post({ name: 'mail', payload: { to: '', copies: 0, bcc: 'b' }, priority: -1, runAt: 'soon' }),
    )
    expect(code).toBe('INPUT_INVALID')
    expect(paths.sort()).toEqual(['/payload/bcc', '/payload/copies', '/payload/to', '/priority', '/runAt'])
  })

  it('an unknown job: 404, and so for one in a batch', async () => {
    expect(await refused(() => api.post({ name: 'nope', payload: {} }))).toMatchObject({
      status: 404,
      code: 'JOB_UNKNOWN',
    })
    expect(await refused(() => api.post([good, { name: 'nope', payload: {} }]))).toMatchObject({
      paths: ['/1/name'],
    })
  })

  it('a batch with one fault among a thousand, and a batch of 1,001', async () => {
    const batch = Array.from({ length: 1_000 }, () => good)
    const spoilt = batch.with(617, { name: 'mail', payload: { to: '' } })
    expect((await refused(() => api.post(spoilt))).paths).toEqual(['/617/payload/to'])
    expect((await refused(() => api.post([...batch, good]))).code).toBe('INPUT_INVALID')
  })

  it('two MiB: 413, whether the length is told or not', async () => {
    const big = JSON.stringify({ name: 'any', payload: 'x'.repeat(2_000_000) })
    expect(await refused(() => api.post(big))).toMatchObject({ status: 413, code: 'BODY_TOO_LARGE' })
    const chunked = new ReadableStream({
      start: (controller) => {
        for (let at = 0; at < big.length; at += 100_000) {
          controller.enqueue(new TextEncoder().encode(big.slice(at, at + 100_000)))
        }
        controller.close()
      },
    })
    const init = { method: 'POST', key: producer, body: chunked, duplex: 'half' as const }
    const send = () => api.request('/v1/jobs', { ...init, headers: { 'content-type': 'application/json' } })
    expect(await refused(send)).toMatchObject({ status: 413 })
  })

  it('other media types: 415', async () => {
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/xml', 'nonsense']) {
      expect(await refused(() => api.post(good, { 'content-type': type }))).toMatchObject({
        status: 415,
        code: 'MEDIA_TYPE_UNSUPPORTED',
      })
    }
  })

  it('an Idempotency-Key that cannot be one', async () => {
    for (const key of ['', 'x'.repeat(256), 'tab\tinside']) {
      expect((await refused(() => api.post(good, { 'idempotency-key': key }))).code).toBe('INPUT_INVALID')
    }
  })
})

describe('odd but right bodies are taken as they are', () => {
  it.each([
    ['NUL and lone surrogates as escapes', '{"name":"any","payload":"a\\u0000b\\ud800"}', 'a\0b\ud800'],
    ['the last of two equal keys', '{"name":"any","payload":1,"payload":{"k":1,"k":2}}', { k: 2 }],
    ['null', '{"name":"any","payload":null}', null],
    ['a key like a prototype’s', '{"name":"any","payload":{"constructor":1}}', { constructor: 1 }],
  ])('%s', async (_what, body, payload) => {
    const response = await api.post(body)
    expect(response.status).toBe(202)
    const { id } = (await response.json()) as { id: string }
    expect((await api.ledger.get(id))?.payload).toEqual(payload)
  })

  it('an instant that has passed means at once', async () => {
    const response = await api.post({ ...good, runAt: '2001-01-01T00:00:00Z' })
    expect(await response.json()).toMatchObject({ state: 'waiting' })
  })
})

describe('keys and roles', () => {
  const send = (key: string | undefined, path = '/v1/jobs', method = 'POST') =>
    api.request(path, {
      method,
      ...(key === undefined ? {} : { key }),
      ...(method === 'POST'
        ? { body: JSON.stringify(good), headers: { 'content-type': 'application/json' } }
        : {}),
    })

  it('are asked for with WWW-Authenticate', async () => {
    expect((await refused(() => send(undefined))).code).toBe('KEY_MISSING')
    const response = await send('no-such-key')
    expect(response.headers.get('www-authenticate')).toContain('Bearer')
    expect((await problem(response)).code).toBe('KEY_INVALID')
    for (const header of ['Bearer', 'Basic dTpw', 'Bearer a b', `bearer${producer}`]) {
      const odd = await api.request('/v1/jobs/x', { headers: { authorization: header } })
      expect(odd.status).toBe(401)
    }
  })

  it('name the role that is needed', async () => {
    expect((await refused(() => send(viewer))).status).toBe(403)
    expect((await problem(await send(viewer))).detail).toContain('producer or operator')
    expect((await problem(await send(producer, '/v1/jobs', 'GET'))).detail).toContain('viewer or operator')
    const id = '00000000-0000-7000-8000-000000000000'
    for (const key of [viewer, producer]) {
      expect((await send(key, `/v1/jobs/${id}`, 'DELETE')).status).toBe(403)
      expect((await send(key, `/v1/jobs/${id}/retry`, 'POST')).status).toBe(403)
    }
    expect((await send(operator, `/v1/jobs/${id}`, 'DELETE')).status).toBe(404)
  })

  it('made in the database work at once and stop within five seconds of being revoked', async () => {
    const { key, id } = await api.keys.create({ name: 'shop', role: 'producer', actor: 'test' })
    expect((await send(key)).status).toBe(202)
    await api.keys.revoke(id, 'test')
    await expect.poll(async () => (await send(key)).status, { timeout: 6_000, interval: 200 }).toBe(401)
    await refused(() => send(key))
  })

  it('are in no line of the log, and neither are payloads', async () => {
    await api.post({ name: 'any', payload: 'a-secret-of-the-payload' })
    await send('a-key-that-nobody-knows')
    await expect.poll(() => api.lines.some((line) => line.includes('"status":401'))).toBe(true)
    const log = api.lines.join('')
    for (const secret of [producer, viewer, 'a-secret-of-the-payload', 'a-key-that-nobody-knows']) {
      expect(log).not.toContain(secret)
    }
  })
})

describe('paths and methods', () => {
  it('that are not there', async () => {
    expect(await refused(() => api.request('/nope'))).toMatchObject({ status: 404, code: 'ROUTE_NOT_FOUND' })
    expect(await refused(() => api.request('/nope', { method: 'POST', body: 'x' }))).toMatchObject({
      status: 404,
    })
    expect((await api.request('/v1/jobs/not-an-id', { key: viewer })).status).toBe(404)
    expect((await api.request('/v1/jobs/%ff', { key: viewer })).status).toBe(400)
  })

  it('that are wrong tell which are right', async () => {
    const response = await api.request('/v1/jobs', { method: 'PUT', key: producer, body: '{}' })
    expect(response.headers.get('allow')).toBe('GET, HEAD, POST, OPTIONS')
    expect((await problem(response)).code).toBe('METHOD_NOT_ALLOWED')
    expect((await api.request('/v1/jobs/x/retry')).status).toBe(405)
  })

  it('HEAD and OPTIONS', async () => {
    const options = await api.request('/v1/jobs', { method: 'OPTIONS' })
    expect([options.status, options.headers.get('allow')]).toEqual([204, 'GET, HEAD, POST, OPTIONS'])
    expect((await api.request('/v1/jobs', { method: 'HEAD', key: viewer })).status).toBe(200)
    expect((await api.request('/v1/jobs', { method: 'HEAD' })).status).toBe(401)
  })

  it('that are no HTTP at all', async () => {
    const answer = await raw('GARBAGE\r\n\r\n')
    expect(answer).toContain('HTTP/1.1 400')
    expect(answer).toContain('REQUEST_MALFORMED')
    expect(await raw(`GET / HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(20_000)}\r\n\r\n`)).toContain(
      'HEADERS_TOO_LARGE',
    )
    expect(
      await raw(
        'POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n',
      ),
    ).toContain('HTTP/1.1 400')
  })

  it('queries with faults', async () => {
    const response = await api.request('/v1/jobs?state=odd&limit=0&colour=red&cursor=%00', { key: viewer })
    const { errors } = await problem(response)
    expect(errors?.map((each) => each.path).sort()).toEqual(['/colour', '/cursor', '/state'])
    for (const query of ['limit=0', 'limit=201', 'limit=1e2', 'cursor=abc', 'name=', 'state=a&state=b']) {
      expect((await api.request(`/v1/jobs?${query}`, { key: viewer })).status).toBe(400)
    }
  })

  it('clients that leave within a body leave nothing, and the next one is served', async () => {
    const before = await api.count()
    const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
    await once(socket, 'connect')
    socket.write(
      `POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${producer}\r\n` +
        'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"name":"mail"',
    )
    socket.destroy()
    expect((await api.post(good)).status).toBe(202)
    expect(await api.count()).toBe(before + 1)
  })
})

async function raw(text: string): Promise<string> {
  const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
  socket.write(text)
  let answer = ''
  socket.on('data', (chunk) => (answer += String(chunk)))
  socket.on('error', () => undefined)
  await once(socket, 'close')
  return answer
}
