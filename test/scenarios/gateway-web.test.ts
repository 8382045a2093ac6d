import { once } from 'node:events'
import { expect, it } from 'vitest'
import { migrateQueues } from '../../src/platform/queues/migrate.ts'
import { testDatabase } from '../support/databases.ts'
import { openBrowser, openGateway } from '../support/gateway-site.ts'
import { eventually, isRunning } from '../support/processes.ts'

const key = 'producer-key-0123456789'

interface Listened {
  cursor: string
  notifications: { id: string; payload: unknown }[]
}

/** Reads an event stream until it ends. */
async function readStream(url: string, token: string) {
  const headers = { accept: 'text/event-stream', authorization: `Bearer ${token}` }
  const answer = await fetch(url, { headers })
  expect(answer.headers.get('content-type')).toContain('text/event-stream')
  let said = ''
  const read = async (): Promise<void> => {
    const decoder = new TextDecoder()
    for await (const chunk of answer.body ?? []) said += decoder.decode(chunk, { stream: true })
  }
  return { over: read().catch(String), said: () => said }
}

async function openSocket(url: string, token: string) {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/listen/ws?device=socket&token=${token}`)
  const messages: string[] = []
  socket.addEventListener('message', ({ data }) => messages.push(String(data)))
  const closed = once(socket, 'close') as Promise<[{ code: number }]>
  await once(socket, 'open')
  return { socket, messages, closed }
}

it('keeps the listens of devices over an upgrade of baton web: none is cut, and no push is lost', async () => {
  const { url: databaseUrl } = await testDatabase()
  await migrateQueues(databaseUrl)
  const site = await openGateway({
    DATABASE_URL: databaseUrl,
    BATON_API_KEYS: `producer:${key}`,
    GATEWAY_STREAM_CLOSE_MS: '400',
    SHUTDOWN_MS: '6000',
  })
  await site.start(['--revision', 'one'])

  const call = async <T>(method: string, path: string, body?: unknown): Promise<T> => {
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
    const init = body === undefined ? { method, headers } : { method, headers, body: JSON.stringify(body) }
    const answer = await fetch(site.url + path, init)
    if (!answer.ok) throw new Error(`${path} answered ${answer.status}: ${await answer.text()}`)
    return (await answer.json()) as T
  }
  const register = async (device: string): Promise<string> =>
    (await call<{ token: string }>('PUT', `/v1/devices/${device}`, { transports: [] })).token
  const send = (device: string, payload: unknown): Promise<unknown> =>
    call('POST', '/v1/pushes', { to: { device }, payload })

  await register('poll')
  const [eventsToken, socketToken] = [await register('events'), await register('socket')]
  const poll = call<Listened>('GET', '/v1/listen?device=poll&waitMs=25000').catch(String)
  const events = await readStream(`${site.url}/v1/listen?device=events`, eventsToken)
  const socket = await openSocket(site.url, socketToken)
  const page = openBrowser(site.url)
  await page.get('/dashboard')
  await eventually(async () =>
    expect(await site.target('one')).toMatchObject({ streams: 2, inFlight: 1, sessions: 1 }),
  )
  const old = (await site.target('one'))?.pid ?? 0

  await site.upgrade('two')
  expect((await site.status()).targets.map(({ revision, state }) => `${revision} ${state}`)).toEqual([
    'one detached',
    'two current',
  ])
  // The streams are told to come again, the poll waits on; a page stays where it was.
  const [{ code }] = await socket.closed
  expect(code).toBe(1012)
  expect(await events.over).toBeUndefined()
  expect(events.said()).toMatch(/retry: \d+\n\n$/)
  await Promise.all([send('events', 'e'), send('socket', 's'), send('poll', 'p')])
  expect(await poll).toMatchObject({ notifications: [{ payload: 'p' }] })
  await page.get('/dashboard')
  expect(page.movedFrom).toBeNull()
  await eventually(async () =>
    expect(await site.target('one')).toMatchObject({ streams: 0, inFlight: 0, sessions: 1 }),
  )

  // What was sent while they were away is there when they come back, to the new one.
  const again = await readStream(`${site.url}/v1/listen?device=events`, eventsToken)
  await eventually(() => expect(again.said()).toContain('"payload":"e"'))
  const socketAgain = await openSocket(site.url, socketToken)
  await eventually(() => expect(socketAgain.messages.join()).toContain('"payload":"s"'))
  expect(await site.target('two')).toMatchObject({ streams: 2 })

  await site.run('end', 'one')
  await eventually(async () => expect(await isRunning(old)).toBe(false), { timeoutMs: 15_000 })
  // A listen that nobody has anything for is answered all the same.
  const waiting = fetch(`${site.url}/v1/listen?device=poll&waitMs=25000`, {
    headers: { authorization: `Bearer ${key}` },
  })
  await eventually(async () => expect(await site.target('two')).toMatchObject({ inFlight: 1 }))
  site.process.signal('SIGTERM')
  expect((await waiting).status).toBe(204)
  await Promise.all([again.over, socketAgain.closed])
  expect(await site.process.exit).toEqual({ code: 0, signal: null })
  expect(site.targetPids()).toEqual([])
})
