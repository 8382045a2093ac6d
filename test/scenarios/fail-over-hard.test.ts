import { expect, test } from 'vitest'
import { atEndOfTest, eventually } from '../support/processes.ts'
import { startPushService } from '../support/push-service.ts'
import { producerKey } from '../support/push-site.ts'
import { openTwoSites, type SiteOfTwo, untilOver } from '../support/sites.ts'

const statePath = (device: string): string => `/v1/devices/${device}/states/devicedata/-/0`

async function putState(site: SiteOfTwo, device: string, value: string): Promise<void> {
  const reply = await fetch(`${site.address}${statePath(device)}`, {
    method: 'PUT',
    body: value,
    headers: { authorization: `Bearer ${producerKey}`, 'content-type': 'application/octet-stream' },
  })
  if (!reply.ok) throw new Error(await reply.text())
}

async function putBody(site: SiteOfTwo, body: string): Promise<string> {
  const reply = await fetch(`${site.address}/v1/bodies`, {
    method: 'PUT',
    body,
    headers: { authorization: `Bearer ${producerKey}`, 'content-type': 'application/octet-stream' },
  })
  const { id } = (await reply.json()) as { id: string }
  return id
}

const stateAt = async (site: SiteOfTwo, device: string): Promise<string> =>
  (await site.call('GET', statePath(device))).text

const register = (site: SiteOfTwo, device: string): Promise<unknown> =>
  site.operate('PUT', `/v1/devices/${device}`, { user: 'ann', transports: [] })

const has = async (site: SiteOfTwo, device: string): Promise<boolean> =>
  (await site.call('GET', `/v1/devices/${device}`)).status === 200

const enqueue = (site: SiteOfTwo, n: number): Promise<{ id: string }> =>
  site.operate('POST', '/v1/jobs', { name: 'effect', payload: { n } })

test('a leader that comes back after a hard fail-over is fenced, hands over what only it had, and undoes nothing', async () => {
  const { a, b } = await openTwoSites()
  const cloud = await startPushService('http')
  atEndOfTest(() => cloud.close())
  await Promise.all(['gone', 'both'].map((device) => register(a, device)))
  await a.operate('PUT', '/v1/devices/kept', {
    user: 'ann',
    transports: [{ kind: 'webhook', url: `${cloud.origin}/kept` }],
  })
  await putState(a, 'both', 'before')
  await eventually(
    async () => {
      expect(await has(b, 'gone')).toBe(true)
      expect(await stateAt(b, 'both')).toBe('before')
    },
    { timeoutMs: 20_000 },
  )

  const waiting = await a.operate<{ id: string }>('POST', '/v1/pushes', {
    to: { device: 'kept' },
    payload: { n: 1 },
    confirmMs: 5_000,
  })
  const isCopied = async (): Promise<void> => {
    const { rows } = await b.postgres.query('SELECT FROM pushes WHERE id = $1', [waiting.id])
    expect(rows).toHaveLength(1)
  }
  await eventually(isCopied, { timeoutMs: 5_000 })

  // Nobody sends any more, and web still accepts: what comes now, only this site has.
  a.worker.signalGroup('SIGSTOP')
  const tail = await enqueue(a, 1)
  const bytes = 'a body that only the old leader has'
  const body = await putBody(a, bytes)
  await putState(a, 'both', 'at a')
  await register(a, 'only-at-a')
  await a.operate('PUT', '/v1/devices/gone', { user: 'bert', transports: [] })
  a.web.signalGroup('SIGSTOP')

  const unconfirmed = await b.command(['fail-over', 'hard'])
  expect(unconfirmed.code).toBe(2)
  expect(unconfirmed.lines.join('\n')).toContain('may be lost')
  expect(await b.state()).toMatchObject({ role: 'replica', intake: 'closed' })
  const taken = await b.command(['fail-over', 'hard', '--yes-leader-is-gone', 'a'])
  expect(taken.code).toBe(0)
  expect(await b.state()).toEqual({ role: 'leader', intake: 'open', epoch: 2 })

  // Its web learns of it within a second.
  await eventually(() => putState(b, 'both', 'at b'), { timeoutMs: 10_000 })
  await b.operate('DELETE', '/v1/devices/gone')
  a.web.signalGroup('SIGCONT')
  a.worker.signalGroup('SIGCONT')

  await a.is('replica', 'closed')
  const returned = await untilOver(a)
  expect(returned).toMatchObject({ phase: 'done', mode: 'hard', to: 'b', error: null })
  expect(returned.report).toMatchObject({ conflict: 1, deleted: 1 })
  // The bytes of a body come ahead of it, and are it already.
  const { adopted = 0, current = 0 } = returned.report as { adopted?: number; current?: number }
  expect(adopted + current).toBeGreaterThanOrEqual(3)

  // What only it had is there now, and runs; what was changed or deleted meanwhile is as it was.
  expect(await has(b, 'only-at-a')).toBe(true)
  expect((await b.call('GET', `/v1/bodies/${body}`)).text).toBe(bytes)
  await eventually(
    async () => {
      const job = await b.operate<{ state: string }>('GET', `/v1/jobs/${tail.id}`)
      expect(job.state).toBe('completed')
    },
    { timeoutMs: 20_000 },
  )
  // What nobody has confirmed goes to the cloud from here, and at most a second time from there, under the same id.
  const sent = () => cloud.received.filter(({ path }) => path === '/kept')
  await eventually(() => expect(sent().length).toBeGreaterThan(0), { timeoutMs: 20_000 })
  expect(await stateAt(b, 'both')).toBe('at b')
  expect(await has(b, 'gone')).toBe(false)
  const { rows } = await b.postgres.query<{ type: string; reason: string }>(
    `SELECT type, reason FROM sync_trash WHERE reason = 'conflict' ORDER BY type`,
  )
  expect(rows.map(({ type }) => type)).toEqual(['device', 'states'])

  // And the old leader follows: it has what the new one has, and takes no writes.
  await eventually(
    async () => {
      expect(await stateAt(a, 'both')).toBe('at b')
      expect(await has(a, 'gone')).toBe(false)
      expect(await has(a, 'only-at-a')).toBe(true)
    },
    { timeoutMs: 20_000 },
  )
  expect((await a.call('POST', '/v1/jobs', { body: { name: 'effect', payload: { n: 2 } } })).status).toBe(503)
  await eventually(
    async () => {
      await b.operate('POST', '/v1/fail-over', { mode: 'rehearse', to: 'a' })
      expect(await untilOver(b)).toMatchObject({ phase: 'done', error: null })
    },
    { timeoutMs: 30_000, everyMs: 500 },
  )
})
