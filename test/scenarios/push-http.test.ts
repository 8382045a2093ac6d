import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { browserKeys } from '../domain/push/ground.ts'
import { eventually } from '../support/processes.ts'
import { type Heard, openPushSite, operatorKey, type PushSite, type WebNode } from '../support/push-site.ts'

// What the HTTP contract says of devices, pushes and listens, against a running web process, good input and bad.

async function begin(): Promise<{ site: PushSite; web: WebNode }> {
  const site = await openPushSite('redis')
  return { site, web: await site.startWeb() }
}

const register = async (web: WebNode, device: string): Promise<string> => {
  const answer = await web.call('PUT', `/v1/devices/${encodeURIComponent(device)}`, {
    body: { transports: [] },
  })
  expect(answer.status).toBe(200)
  return answer.json<{ token: string }>().token
}

test('a device registers, listens with its token, gets a push, confirms it, and the log tells so', async () => {
  const { web } = await begin()
  const { keys } = browserKeys()
  const registered = await web.call('PUT', '/v1/devices/phone', {
    body: {
      user: 'ann',
      groups: ['team'],
      transports: [{ kind: 'webpush', endpoint: 'https://push.example.net/abc', keys }],
    },
  })
  expect(registered.status).toBe(200)
  const { token } = registered.json<{ token: string }>()
  const again = await web.call('PUT', '/v1/devices/phone', { body: { transports: [] } })
  expect(again.json<{ token: string }>().token).toBe(token)

  const listening = web.call('GET', '/v1/listen?device=phone&waitMs=10000', { key: token })
  const sent = await web.call('POST', '/v1/pushes', {
    body: { to: { user: 'ann' }, payload: { text: 'hello' }, priority: 'priority', topic: 'greeting' },
  })
  expect(sent.status).toBe(202)
  const { id, devices } = sent.json<{ id: string; devices: number }>()
  expect(devices).toBe(1)
  const heard = await listening
  expect(heard.status).toBe(200)
  const { cursor, notifications } = heard.json<Heard>()
  expect(notifications).toEqual([
    {
      id,
      device: 'phone',
      topic: 'greeting',
      payload: { text: 'hello' },
      acceptedAt: expect.stringMatching(/Z$/),
    },
  ])
  const quiet = await web.call('GET', `/v1/listen?device=phone&after=${cursor}&waitMs=10`, { key: token })
  expect(quiet.status).toBe(204)
  expect(quiet.headers['baton-cursor']).toEqual(expect.any(String))
  const log = (await web.call('GET', `/v1/pushes/${id}`)).json<{
    devices: { state: string; milestones: { name: string }[] }[]
  }>()
  expect(log.devices[0]?.state).toBe('confirmed')
  expect(log.devices[0]?.milestones.map((each) => each.name)).toEqual(['accepted', 'delivered', 'confirmed'])
})

test('a stream of events and a WebSocket give, confirm, and end when a newer listen comes', async () => {
  const { web } = await begin()
  const token = await register(web, 'tv')
  const push = async (payload: unknown): Promise<string> => {
    const sent = await web.call('POST', '/v1/pushes', {
      body: { to: { device: 'tv' }, payload, priority: 'normal' },
    })
    return sent.json<{ id: string }>().id
  }
  const stateOf = async (id: string): Promise<string | undefined> =>
    (await web.call('GET', `/v1/pushes/${id}`)).json<{ devices: { state: string }[] }>().devices[0]?.state

  const events = await fetch(`${web.address}/v1/listen?device=tv`, {
    headers: { authorization: `Bearer ${token}`, accept: 'text/event-stream' },
  })
  expect(events.headers.get('content-type')).toContain('text/event-stream')
  const reader = events.body?.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  const readUntil = async (mark: string): Promise<void> => {
    while (!text.includes(mark)) {
      const { value, done } = (await reader?.read()) ?? {}
      if (done) break
      text += value ?? ''
    }
    expect(text).toContain(mark)
  }
  const first = await push({ n: 1 })
  await readUntil(first)
  const cursor = /id: (\S+)\nevent: notification/.exec(text)?.[1]
  const confirmed = await web.call('POST', '/v1/listen/confirm', {
    body: { device: 'tv', cursor },
    key: token,
  })
  expect(confirmed.json()).toEqual({ confirmed: 1 })
  expect(await stateOf(first)).toBe('confirmed')

  const socket = new WebSocket(
    `${web.address.replace('http', 'ws')}/v1/listen/ws?device=tv&token=${token}&after=${cursor}`,
  )
  const messages: Record<string, unknown>[] = []
  socket.addEventListener(
    'message',
    ({ data }) => void messages.push(JSON.parse(String(data)) as Record<string, unknown>),
  )
  const closed = new Promise<number>((resolve) =>
    socket.addEventListener('close', (event) => resolve(event.code)),
  )
  await readUntil('LISTEN_REPLACED')
  const second = await push({ n: 2 })
  const notification = await eventually(() => {
    const found = messages.find((each) => each['type'] === 'notification')
    expect(found).toMatchObject({ id: second, device: 'tv', payload: { n: 2 } })
    return found
  })
  socket.send(JSON.stringify({ type: 'confirm', cursor: notification?.['cursor'] }))
  await eventually(() => expect(messages).toContainEqual({ type: 'confirmed', count: 1 }))
  expect(await stateOf(second)).toBe('confirmed')
  socket.send('garbage')
  await eventually(() => expect(messages.at(-1)).toMatchObject({ type: 'problem' }))
  await web.call('GET', '/v1/listen?device=tv&waitMs=0', { key: token })
  expect(await closed).toBe(4409)
})

test('bad input is told what is wrong with it, and changes nothing', async () => {
  const { web, site } = await begin()
  const token = await register(web, 'one')
  const other = await register(web, 'two')
  const codeOf = async (method: string, path: string, options: Parameters<WebNode['call']>[2] = {}) => {
    const answer = await web.call(method, path, options)
    const { code, errors } = answer.json<{ code: string; errors?: { path: string; message: string }[] }>()
    return [answer.status, code, ...(errors ?? []).map((each) => each.path)]
  }
  const put = (body: unknown) => codeOf('PUT', '/v1/devices/x', { body })
  expect(await put({ transports: [{ kind: 'pigeon' }] })).toEqual([
    400,
    'INPUT_INVALID',
    '/transports/0/kind',
  ])
  expect(
    await put({ transports: [{ kind: 'webpush', endpoint: 'ftp://x', keys: { p256dh: 'AAAA', auth: '' } }] }),
  ).toEqual([
    400,
    'INPUT_INVALID',
    '/transports/0/endpoint',
    '/transports/0/keys/p256dh',
    '/transports/0/keys/auth',
  ])
  const offCurve = Buffer.concat([Buffer.from([4]), Buffer.alloc(64, 7)]).toString('base64url')
  const auth = Buffer.alloc(16).toString('base64url')
  expect(
    await put({
      transports: [{ kind: 'webpush', endpoint: 'https://x.example/', keys: { p256dh: offCurve, auth } }],
    }),
  ).toEqual([400, 'INPUT_INVALID', '/transports/0/keys/p256dh'])
  expect(await put({ transports: 'none' })).toEqual([400, 'INPUT_INVALID', '/transports'])
  expect(await put({ transprots: [] })).toEqual([400, 'INPUT_INVALID', '/transprots'])
  expect(await put([])).toEqual([400, 'INPUT_INVALID', ''])

  const push = (body: unknown) => codeOf('POST', '/v1/pushes', { body })
  expect(await push({ to: { device: 'nobody' } })).toEqual([404, 'DEVICE_NOT_FOUND', '/to/device'])
  expect(await push({ to: { device: 'one' }, payload: 'x'.repeat(1_048_576) })).toEqual([
    413,
    'BODY_TOO_LARGE',
  ])
  expect(await push({ to: { device: 'one' }, ttlMs: 0 })).toEqual([400, 'INPUT_INVALID', '/ttlMs'])
  expect(await push({ to: { device: 'one' }, ttlMs: -5, confirmMs: 1.5, priority: 'urgent' })).toEqual([
    400,
    'INPUT_INVALID',
    '/priority',
    '/confirmMs',
    '/ttlMs',
  ])
  expect(await push({ to: { device: 'one', user: 'ann' } })).toEqual([400, 'INPUT_INVALID', '/to'])
  expect(await push([])).toEqual([400, 'INPUT_INVALID', ''])
  expect(await push([{ to: { device: 'one' } }, { to: { device: 'nobody' } }])).toEqual([
    404,
    'DEVICE_NOT_FOUND',
    '/1/to/device',
  ])

  const listen = (query: string, key: string) => codeOf('GET', `/v1/listen?${query}`, { key })
  expect(await listen('device=one&waitMs=0', other)).toEqual([401, 'DEVICE_TOKEN_INVALID'])
  expect(await listen('device=one&device=two&waitMs=0', token)).toEqual([401, 'DEVICE_TOKEN_INVALID'])
  expect(await listen('device=one&waitMs=0', 'bd1.b25l.1.forged')).toEqual([401, 'DEVICE_TOKEN_INVALID'])
  expect(await listen('device=one&waitMs=0', 'no such key at all')).toEqual([401, 'KEY_INVALID'])
  expect(await listen('device=one&waitMs=0', '')).toEqual([401, 'KEY_MISSING'])
  expect(await listen('waitMs=0', token)).toEqual([400, 'INPUT_INVALID', '/query/device'])
  expect(await listen('device=one&waitMs=soon', token)).toEqual([400, 'INPUT_INVALID', '/query/waitMs'])
  expect(await listen('device=one&after=garbage', token)).toEqual([400, 'CURSOR_INVALID'])
  const foreign = (await web.call('GET', '/v1/listen?device=two&waitMs=0', { key: other })).headers[
    'baton-cursor'
  ]
  expect(await listen(`device=one&after=${String(foreign)}`, token)).toEqual([400, 'CURSOR_INVALID'])
  expect(await codeOf('POST', '/v1/listen/confirm', { body: { device: 'one' }, key: token })).toEqual([
    400,
    'INPUT_INVALID',
    '/cursor',
  ])
  expect(await codeOf('GET', '/v1/pushes/17')).toEqual([404, 'PUSH_NOT_FOUND'])
  expect(await site.query('SELECT count(*)::int AS n FROM pushes')).toEqual([{ n: 0 }])

  for (const odd of ['a b', 'ä/ö?#%', '日本語', "'; DROP TABLE devices; --", '...', '<b>']) {
    const oddToken = await register(web, odd)
    const query = `/v1/listen?device=${encodeURIComponent(odd)}&waitMs=0`
    expect((await web.call('GET', query, { key: oddToken })).status).toBe(204)
  }
  expect((await codeOf('PUT', `/v1/devices/${'x'.repeat(10_000)}`, { body: {} }))[0]).toBe(400)
  expect(await codeOf('PUT', `/v1/devices/${'x'.repeat(1_000)}`, { body: {} })).toEqual([
    400,
    'INPUT_INVALID',
    '/device',
  ])
  expect(await codeOf('PUT', '/v1/devices/a%00b', { body: {} })).toEqual([400, 'INPUT_INVALID', '/device'])
  const huge = 'x'.repeat(10_000)
  expect(await push({ to: { device: huge } })).toEqual([400, 'INPUT_INVALID', '/to/device'])
  expect(await listen(`device=${huge}&waitMs=0`, token)).toEqual([400, 'INPUT_INVALID', '/device'])
})

test('an Idempotency-Key sends once, and a withdrawn push is not delivered', async () => {
  const { web } = await begin()
  const token = await register(web, 'phone')
  const send = (payload: string) =>
    web.call('POST', '/v1/pushes', {
      body: { to: { device: 'phone' }, payload, priority: 'normal' },
      headers: { 'idempotency-key': 'k-1' },
    })
  const [first, second] = [await send('a'), await send('a')]
  expect(second.text).toBe(first.text)
  expect(second.headers['idempotency-replayed']).toBe('true')
  expect((await send('b')).status).toBe(409)
  const { id } = first.json<{ id: string }>()
  expect((await web.call('DELETE', `/v1/pushes/${id}`)).json()).toEqual({ id, devices: 1, withdrawn: 1 })
  expect((await web.call('GET', '/v1/listen?device=phone&waitMs=0', { key: token })).status).toBe(204)
})

test('a listen whose client has gone takes nothing along, and 10,000 connects and disconnects leave nothing behind', async () => {
  const { web } = await begin()
  const token = await register(web, 'phone')
  const first = await web.call('GET', '/v1/listen?device=phone&waitMs=0', { key: token })
  // Nobody but who has a later cursor may make anything count as received.
  const listen = `/v1/listen?device=phone&after=${String(first.headers['baton-cursor'])}`
  const ids: string[] = []
  for (let round = 0; round < 50; round += 1) {
    const abort = new AbortController()
    const gone = Array.from({ length: 200 }, () =>
      web.call('GET', listen, { key: token, signal: abort.signal }).catch(() => undefined),
    )
    setTimeout(() => abort.abort(), 20)
    await Promise.all(gone)
    const sent = await web.call('POST', '/v1/pushes', {
      body: { to: { device: 'phone' }, priority: 'normal' },
    })
    ids.push(sent.json<{ id: string }>().id)
  }
  // A listen of a client that has gone may still be on its way, and is then the newer one: a device listens again.
  const patience = { timeoutMs: 60_000, everyMs: 200 }
  await eventually(async () => {
    const heard = await web.call('GET', `${listen}&waitMs=1000`, { key: token })
    expect(heard.status).toBe(200)
    expect(heard.json<Heard>().notifications.map((each) => each.id)).toEqual(ids)
  }, patience)
  await eventually(async () => {
    const metrics = await web.call('GET', '/metrics', { key: operatorKey })
    expect(metrics.text).toMatch(/^baton_push_listens 0$/m)
  }, patience)
})

test('the command line sends, shows and lists', async () => {
  const { web, site } = await begin()
  const token = await register(web, 'phone')
  const sent = await site.command(['push', 'send', '{"n":1}', '--device', 'phone', '--normal', '--json'])
  expect(sent.code).toBe(0)
  const { id, devices } = JSON.parse(sent.stdout[0] ?? '') as { id: string; devices: number }
  expect(devices).toBe(1)
  const heard = await web.call('GET', '/v1/listen?device=phone&waitMs=0', { key: token })
  expect(heard.json<Heard>().notifications).toMatchObject([{ id, payload: { n: 1 } }])
  const shown = await site.command(['push', 'show', id])
  expect(shown.stdout[0]).toBe('phone  delivered')
  const listed = await site.command(['push', 'devices'])
  expect(listed.stdout).toEqual([expect.stringMatching(/^phone {2}- {2}no transport {2}1 open/)])
  expect((await site.command(['push', 'show', 'nothing'])).code).toBe(1)
  expect((await site.command(['push', 'send', '--device', 'nobody'])).code).toBe(1)
})

test('a slow reader costs little memory and loses nothing', async () => {
  const { web, site } = await begin()
  await register(web, 'slow')
  const reader = connect(Number(new URL(web.address).port), '127.0.0.1')
  reader.write(
    `GET /v1/listen?device=slow HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer ${operatorKey}\r\n\r\n`,
  )
  await new Promise((resolve) => reader.once('data', resolve))
  reader.pause()
  const payload = 'x'.repeat(16_000)
  const send = async (device: string): Promise<Set<string>> => {
    const ids = new Set<string>()
    for (let n = 0; n < 60; n += 1) {
      const body = Array.from({ length: 50 }, () => ({ to: { device }, payload, priority: 'normal' }))
      const sent = await web.call('POST', '/v1/pushes', { body })
      for (const { id } of sent.json<{ pushes: { id: string }[] }>().pushes) ids.add(id)
    }
    return ids
  }
  // As many for a device that nobody reads, so that what accepting takes is not counted.
  await register(web, 'other')
  await send('other')
  const before = residentMiB(web.process.pid)
  const ids = await send('slow')
  const [given] = await site.query('SELECT count(*)::int AS n FROM pushes WHERE delivered_seq IS NOT NULL')
  // 48 MB are waiting; only what fits into the connection has been fetched. What is resident moves by itself by some
  // ten MiB with the garbage of 60 requests; all of it held, as rows and as bytes to send, would be twice the 48.
  expect(given?.['n']).toBeLessThan(600)
  // Garbage is given back some time; what is held is not.
  await eventually(() => expect(residentMiB(web.process.pid) - before).toBeLessThan(90))
  const heard = new Set<string>()
  let text = ''
  reader.on('data', (chunk) => {
    text += chunk.toString('latin1')
    for (const [, id = ''] of text.matchAll(/"id":"([0-9a-f-]{36})"/g)) heard.add(id)
    text = text.slice(-100)
  })
  reader.resume()
  await eventually(() => expect(heard.size).toBe(ids.size), { timeoutMs: 30_000 })
  reader.destroy()
})

test('a stop answers the listens that wait, ends the streams, and is clean', async () => {
  const { web } = await begin()
  const token = await register(web, 'phone')
  await register(web, 'tv')
  const waiting = web.call('GET', '/v1/listen?device=phone', { key: token })
  const events = await fetch(`${web.address}/v1/listen?device=tv`, {
    headers: { authorization: `Bearer ${operatorKey}`, accept: 'text/event-stream' },
  })
  const stream = events.text()
  await eventually(async () => {
    const metrics = await web.call('GET', '/metrics', { key: operatorKey })
    expect(metrics.text).toMatch(/^baton_push_listens 2$/m)
  })
  const startedAt = performance.now()
  web.process.signal('SIGTERM')
  expect((await waiting).status).toBe(204)
  expect(await stream).toContain('retry:')
  expect(performance.now() - startedAt).toBeLessThan(2_000)
  expect(await web.process.exit).toEqual({ code: 0, signal: null })
})

const residentMiB = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1_024
