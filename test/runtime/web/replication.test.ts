import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { protocol } from '../../../src/domain/sync/wire.ts'
import { createSite } from '../../../src/platform/replication/site.ts'
import {
  openReplayPair,
  openSite,
  type ReplayPair,
  seal,
  type WebSite,
} from '../../domain/sync/replay-pair.ts'
import { putThing } from '../../domain/sync/things.ts'
import { atEndOfTest } from '../../support/processes.ts'
import { operator, problem, producer, viewer } from './web-harness.ts'

const send = (
  site: WebSite,
  method: string,
  path: string,
  { body, key = operator }: { body?: unknown; key?: string } = {},
): Promise<Response> =>
  site.harness.request(path, {
    method,
    key,
    ...(body === undefined
      ? {}
      : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
  })

const put = (site: WebSite, body: unknown, name = 'b'): Promise<Response> =>
  send(site, 'PUT', `/v1/replicas/${name}`, { body })

const stateOf = ({ postgres }: WebSite) => createSite({ postgres }).read()

describe('PUT /v1/replicas/:name', () => {
  it('makes the one a leader and the other its replica, keeps the key sealed, and is audited', async () => {
    const [a, b] = await Promise.all([openSite('a'), openSite('b')])
    const response = await put(a, { url: `${b.url}/`, key: operator, policy: { '*': 'report', job: 'keep' } })
    expect(response.status).toBe(200)
    const text = await response.text()
    expect(JSON.parse(text)).toMatchObject({ name: 'b', url: b.url, policy: { '*': 'report', job: 'keep' } })
    expect(text).not.toContain(operator)
    expect(await stateOf(a)).toMatchObject({ role: 'leader', intake: 'open', epoch: 1 })
    expect(await stateOf(b)).toMatchObject({ role: 'replica', intake: 'closed', leader: 'a' })
    const { rows } = await a.postgres.query<{ key_sealed: string }>('SELECT key_sealed FROM replicas')
    expect(rows[0]?.key_sealed).not.toContain(operator)
    expect(seal.open(rows[0]?.key_sealed ?? '')).toBe(operator)
    const audit = await a.postgres.query('SELECT action, subject, details::text FROM audit_log')
    expect(audit.rows).toMatchObject([{ action: 'replica.put', subject: 'b' }])
    expect(JSON.stringify(audit.rows)).not.toContain(operator)
    // Again changes what is given.
    expect((await put(a, { url: b.url, key: operator, policy: { '*': 'replace' } })).status).toBe(200)
    const view = (await (await send(a, 'GET', '/v1/replicas', { key: viewer })).json()) as object
    expect(view).toMatchObject({
      site: { name: 'a', role: 'leader', epoch: 1, pending: { changes: 0 } },
      replicas: [{ name: 'b', policy: { '*': 'replace' }, lag: { changes: 0 }, quarantine: { failed: 0 } }],
    })
    const metrics = await (await send(a, 'GET', '/metrics', { key: viewer })).text()
    expect(metrics).toContain('baton_sync_lag_seconds{replica="b"} 0')
    expect(metrics).toContain('baton_sync_quarantine{replica="b",kind="held"} 0')
    expect(metrics).toContain('baton_sync_pending_changes 0')
  })

  it('says what is wrong with a site, and leaves both as they were', async () => {
    const [a, b, c] = await Promise.all([openSite('a'), openSite('b'), openSite('c')])
    const page = createServer((_request, response) =>
      response.writeHead(200, { 'content-type': 'text/html' }).end('<html>'),
    ).listen(0, '127.0.0.1')
    await once(page, 'listening')
    atEndOfTest(async () => void page.close())
    const other = `http://127.0.0.1:${(page.address() as AddressInfo).port}`
    const codeOf = async (body: unknown, name?: string): Promise<string> => {
      const { status, code } = await problem(await put(a, body, name))
      return `${status} ${code}`
    }
    expect(await codeOf({ url: 'not a url', key: operator })).toBe('400 INPUT_INVALID')
    expect(await codeOf({ url: 'ftp://host/', key: operator })).toBe('400 INPUT_INVALID')
    expect(await codeOf({ url: 'http://user:secret@host/', key: operator })).toBe('400 INPUT_INVALID')
    expect(await codeOf({ url: b.url, key: 'short' })).toBe('400 INPUT_INVALID')
    expect(await codeOf({ url: b.url, key: operator, policy: { job: 'other' } })).toBe('400 INPUT_INVALID')
    expect(await codeOf({ url: b.url, key: operator }, '..%2Fx')).toBe('400 INPUT_INVALID')
    expect(await codeOf({ url: b.url, key: 'a-key-that-nobody-knows' })).toBe('502 SITE_REFUSED')
    expect(await codeOf({ url: b.url, key: producer })).toBe('502 SITE_REFUSED')
    expect(await codeOf({ url: 'http://127.0.0.1:1', key: operator })).toBe('502 SITE_UNREACHABLE')
    expect(await codeOf({ url: other, key: operator })).toBe('502 SITE_ANSWER_INVALID')
    await putThing(b.postgres, 'one', 'its own')
    expect(await codeOf({ url: b.url, key: operator })).toBe('409 REPLICA_UNUSABLE')
    await createSite({ postgres: c.postgres }).lead()
    expect(await codeOf({ url: c.url, key: operator })).toBe('409 REPLICA_UNUSABLE')
    for (const site of [a, b]) expect(await stateOf(site)).toMatchObject({ role: 'alone', intake: 'open' })
    expect((await a.postgres.query('SELECT FROM replicas')).rowCount).toBe(0)
  }, 30_000)

  it("refuses this site's own address in words, and leaves it alone; also once it leads", async () => {
    const [a, b] = await Promise.all([openSite('a'), openSite('b')])
    const own = await problem(await put(a, { url: a.url, key: operator }))
    expect(own).toMatchObject({ status: 409, code: 'REPLICA_UNUSABLE' })
    expect(own.detail).toContain("is this site's own")
    expect(await stateOf(a)).toMatchObject({ role: 'alone', intake: 'open', lineage: null })
    expect((await put(a, { url: b.url, key: operator })).status).toBe(200)
    const before = await stateOf(a)
    expect((await problem(await put(a, { url: a.url, key: operator }, 'c'))).detail).toContain('own')
    expect((await problem(await put(b, { url: b.url, key: operator }, 'c'))).detail).toContain('own')
    expect(await stateOf(a)).toEqual(before)
    expect((await a.postgres.query('SELECT FROM replicas')).rowCount).toBe(1)
  })

  it('leaves the site alone when the other one refuses to follow after all', async () => {
    const [a, b] = await Promise.all([openSite('a'), openSite('b')])
    // Not of the types that are looked at, but not nothing either.
    await b.postgres.query(`INSERT INTO datasets (name, import) VALUES ('d', gen_random_uuid())`)
    expect(await problem(await put(a, { url: b.url, key: operator }))).toMatchObject({
      status: 502,
      code: 'SITE_REFUSED',
    })
    for (const site of [a, b]) expect(await stateOf(site)).toMatchObject({ role: 'alone', intake: 'open' })
  })

  it('is for operators alone', async () => {
    const a = await openSite('a')
    for (const key of [producer, viewer]) {
      const response = await send(a, 'PUT', '/v1/replicas/b', { body: {}, key })
      expect(await problem(response)).toMatchObject({ status: 403, code: 'ROLE_MISSING' })
      const hello = await send(a, 'POST', '/v1/replication/hello', { body: {}, key })
      expect(await problem(hello)).toMatchObject({ status: 403 })
    }
  })
})

describe('a replica', () => {
  let pair: ReplayPair
  let sender: { protocol: number; lineage: string; epoch: number }
  beforeAll(async () => {
    pair = await openReplayPair()
    await putThing(pair.leader.postgres, 'one', 'value')
    await pair.settle()
    const { speaker } = await pair.link()
    sender = { protocol, lineage: speaker.lineage, epoch: speaker.epoch }
  })
  afterAll(() => Promise.all([pair.leader.close(), pair.replica.close()]))
  const foreign = '00000000-0000-7000-8000-000000000000'
  const empty = { shard: 0, window: null, objects: [] }

  it('refuses who may not write here, with what he needs to know', async () => {
    const apply = async (body: object) =>
      problem(
        await send(pair.replica, 'POST', '/v1/replication/apply', { body: { ...sender, ...empty, ...body } }),
      )
    expect(await apply({ protocol: 99 })).toMatchObject({ status: 409, code: 'SYNC_PROTOCOL' })
    expect(await apply({ lineage: foreign })).toMatchObject({ status: 409, code: 'LINEAGE_FOREIGN' })
    expect(await apply({ epoch: 0 })).toMatchObject({
      status: 409,
      code: 'EPOCH_STALE',
      errors: [{ path: '/epoch', message: '1' }],
    })
    expect(await apply({ window: { from: 999, to: 1_000 } })).toMatchObject({
      status: 409,
      code: 'SYNC_CURSOR',
      errors: [{ path: '/cursor', message: expect.stringMatching(/^\d+$/) }],
    })
    const leading = await send(pair.leader, 'POST', '/v1/replication/apply', {
      body: { ...sender, ...empty },
    })
    expect(await problem(leading)).toMatchObject({ status: 409, code: 'SITE_LEADS' })
  })

  it('tells every fault of a request that does not fit', async () => {
    for (const call of ['hello', 'plan', 'apply', 'digest', 'bucket', 'reread', 'candidates']) {
      const response = await send(pair.replica, 'POST', `/v1/replication/${call}`, {
        body: { protocol: 'x' },
      })
      const { status, code, errors } = await problem(response)
      expect({ call, status, code }).toEqual({ call, status: 400, code: 'INPUT_INVALID' })
      expect(errors?.length).toBeGreaterThan(1)
    }
    const upload = await pair.replica.harness.request(`/v1/replication/bodies/${sha('x')}`, {
      method: 'PUT',
      key: operator,
      body: 'x',
      headers: { 'content-type': 'application/octet-stream' },
    })
    expect(await problem(upload)).toMatchObject({ status: 400, code: 'INPUT_INVALID' })
  })

  it('says hello to its leader, and to nobody of another history', async () => {
    const hello = (body: object): Promise<Response> =>
      send(pair.replica, 'POST', '/v1/replication/hello', {
        body: { ...sender, leader: 'a', look: false, ...body },
      })
    expect(await (await hello({})).json()).toMatchObject({
      role: 'replica',
      intake: 'closed',
      name: 'b',
      epoch: 1,
    })
    expect(await problem(await hello({ lineage: foreign }))).toMatchObject({
      status: 409,
      code: 'LINEAGE_FOREIGN',
    })
    expect(await problem(await hello({ epoch: 0 }))).toMatchObject({
      status: 409,
      code: 'EPOCH_STALE',
      errors: [{ path: '/epoch', message: '1' }],
    })
  })

  it('is refused when it stands above the head: it has what nobody sent', async () => {
    await pair.replica.postgres.query('UPDATE sync_cursors SET pos = pos + 100 WHERE shard = 5')
    await expect(pair.link()).rejects.toMatchObject({ code: 'REPLICA_DIVERGED' })
    await pair.replica.postgres.query('UPDATE sync_cursors SET pos = pos - 100 WHERE shard = 5')
  })

  it('takes no write of others, whoever asks', async () => {
    await expect(putThing(pair.replica.postgres, 'two', 'x')).rejects.toThrow(/closed|no writes/)
  })
})

describe('what an operator asks of a replica', () => {
  it('is paused, resumed, verified and removed, all of it audited', async () => {
    const pair = await openReplayPair()
    const act = async (action: string) => (await send(pair.leader, 'POST', `/v1/replicas/b/${action}`)).json()
    expect(await act('pause')).toMatchObject({ paused: true })
    expect(await act('resume')).toMatchObject({ paused: false })
    expect(await act('verify')).toMatchObject({ verifyWantedAt: expect.any(String) })
    const approve = (body: unknown) => send(pair.leader, 'POST', '/v1/replicas/b/approve', { body })
    expect(await problem(await approve({}))).toMatchObject({ status: 400, code: 'INPUT_INVALID' })
    expect(await problem(await approve({ plan: '00000000-0000-7000-8000-000000000000' }))).toMatchObject({
      status: 404,
      code: 'FUSE_NOT_FOUND',
    })
    expect((await send(pair.leader, 'DELETE', '/v1/replicas/b')).status).toBe(204)
    expect(await problem(await send(pair.leader, 'POST', '/v1/replicas/b/pause'))).toMatchObject({
      status: 404,
      code: 'REPLICA_NOT_FOUND',
    })
    const { rows } = await pair.leader.postgres.query<{ action: string }>(
      'SELECT action FROM audit_log ORDER BY id',
    )
    expect(rows.map(({ action }) => action)).toEqual([
      'replica.pause',
      'replica.resume',
      'replica.verify',
      'replica.remove',
    ])
  })
})

describe('POST /v1/site/leave', () => {
  it('makes a leader without replicas alone again, audited; a later replica begins another lineage', async () => {
    const pair = await openReplayPair()
    const leave = (site: WebSite, key = operator) => send(site, 'POST', '/v1/site/leave', { key })
    expect(await problem(await leave(pair.leader, producer))).toMatchObject({ status: 403 })
    expect(await problem(await leave(pair.leader))).toMatchObject({ status: 409, code: 'SITE_IN_USE' })
    expect(await problem(await leave(pair.replica))).toMatchObject({ status: 409, code: 'SITE_IS_REPLICA' })
    expect((await send(pair.leader, 'DELETE', '/v1/replicas/b')).status).toBe(204)
    const { lineage } = await stateOf(pair.leader)
    const left = await leave(pair.leader)
    expect(left.status).toBe(200)
    expect(await left.json()).toMatchObject({ role: 'alone', intake: 'open', lineage: null })
    const { rows } = await pair.leader.postgres.query('SELECT action FROM audit_log ORDER BY id')
    expect(rows).toEqual([{ action: 'replica.remove' }, { action: 'site.leave' }])
    // Who was its replica is of the old lineage; an empty one follows the new one.
    expect(
      (await problem(await put(pair.leader, { url: pair.replica.url, key: operator }))).detail,
    ).toContain('of another lineage')
    const c = await openSite('c')
    await putThing(pair.leader.postgres, 'one', 'value')
    expect((await put(pair.leader, { url: c.url, key: operator }, 'c')).status).toBe(200)
    expect((await stateOf(pair.leader)).lineage).not.toBe(lineage)
  }, 20_000)
})

it('does not give up a lead that a replica is just being registered for', async () => {
  const [a, b] = await Promise.all([openSite('a'), openSite('b')])
  const leaving = async (): Promise<void> => {
    for (let isLeft = false; !isLeft; ) {
      const { status } = await send(a, 'POST', '/v1/site/leave')
      isLeft = status === 409
    }
  }
  const [response] = await Promise.all([put(a, { url: b.url, key: operator }), leaving()])
  expect(response.status).toBe(200)
  const { role, lineage } = await stateOf(a)
  expect(role).toBe('leader')
  expect((await stateOf(b)).lineage).toBe(lineage)
}, 30_000)

const sha = (text: string): string => createHash('sha256').update(text).digest('hex')
