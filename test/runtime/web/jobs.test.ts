import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DATABASE_UNAVAILABLE } from '../../../src/platform/postgres/errors.ts'
import { readEvents } from './events.ts'
import { type Harness, operator, problem, producer, startHarness, viewer } from './web-harness.ts'

let api: Harness
beforeAll(async () => {
  api = await startHarness()
})
afterAll(() => api.close())

interface Job {
  id: string
  name: string
  state: string
  duplicate?: boolean
  [other: string]: unknown
}

const good = { name: 'mail', payload: { to: 'a' } }
const take = async (body: unknown = good, headers?: Record<string, string>): Promise<Job> => {
  const response = await api.post(body, headers)
  expect(response.status).toBe(202)
  return (await response.json()) as Job
}
const read = async (id: string, key = producer): Promise<Job> => {
  const response = await api.request(`/v1/jobs/${id}`, { key })
  expect(response.status).toBe(200)
  return (await response.json()) as Job
}
const run = async (id: string): Promise<string> => {
  const token = randomUUID()
  expect((await api.ledger.start(id, { token, runner: 'r' })).kind).toBe('started')
  return token
}

describe('taking in', () => {
  it('answers with the id of a row that is committed, and an entry of the queue', async () => {
    const { id, name, state } = await take()
    expect([name, state]).toEqual(['mail', 'waiting'])
    expect(await read(id)).toMatchObject({
      id,
      name: 'mail',
      queue: 'default',
      state: 'waiting',
      attempts: 0,
      interruptions: 0,
      progress: null,
      enqueuedAt: expect.stringMatching(/^\d{4}-.*Z$/),
    })
    expect(await read(id)).not.toHaveProperty('payload')
    await expect.poll(async () => (await api.backend.counts('default')).waiting).toBeGreaterThan(0)
  })

  it('takes a batch in its order, delays and instants included', async () => {
    const batch = [
      good,
      { ...good, delayMs: 60_000 },
      { name: 'any', payload: 1, runAt: new Date(Date.now() + 60_000).toISOString() },
      { name: 'any', payload: 1, runAt: Date.now() + 60_000, priority: 5 },
    ]
    const { jobs } = (await take(batch)) as unknown as { jobs: Job[] }
    expect(jobs.map((job) => `${job.name} ${job.state}`)).toEqual([
      'mail waiting',
      'mail delayed',
      'any delayed',
      'any delayed',
    ])
    expect(await read(jobs[3]?.id ?? '')).toMatchObject({ state: 'delayed', priority: 5 })
  })

  it('takes a thousand at once', async () => {
    const before = await api.count()
    const { jobs } = (await take(Array.from({ length: 1_000 }, () => good))) as unknown as { jobs: Job[] }
    expect(new Set(jobs.map((job) => job.id)).size).toBe(1_000)
    expect(await api.count()).toBe(before + 1_000)
  })

  it('answers a taken dedupe key with the older job and what it is doing', async () => {
    const first = await take({ ...good, dedupeKey: 'k1' })
    expect(await take({ ...good, dedupeKey: 'k1' })).toEqual({ ...first, duplicate: true })
    await run(first.id)
    expect(await take({ ...good, dedupeKey: 'k1' })).toMatchObject({ id: first.id, state: 'active' })
  })

  it('keeps work without a row in the queue alone, where it is found by its id', async () => {
    const before = await api.count()
    const { id } = await take({ name: 'ping', payload: {} })
    expect(await api.count()).toBe(before)
    expect(await read(id)).toMatchObject({ id, name: 'ping', queue: 'other', state: 'waiting' })
    const cancelled = await api.request(`/v1/jobs/${id}`, { method: 'DELETE', key: operator })
    expect(cancelled.status).toBe(200)
    expect((await api.request(`/v1/jobs/${id}`, { key: viewer })).status).toBe(404)
  })

  it('carries the request id and the trace into the job, and makes an id when none of sense is given', async () => {
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    const response = await api.post(good, { 'x-request-id': 'my-id.1', traceparent })
    expect(response.headers.get('x-request-id')).toBe('my-id.1')
    const contextOf = async (id: string): Promise<unknown> => {
      const started = await api.ledger.start(id, { token: randomUUID(), runner: 'r' })
      return started.kind === 'started' ? started.context : started
    }
    const { id } = (await response.json()) as Job
    expect(await contextOf(id)).toEqual({ requestId: 'my-id.1', traceparent })
    const odd = await api.post(good, {
      'x-request-id': 'a b',
      traceparent: `00-${'0'.repeat(32)}-b7ad6b7169203331-01`,
    })
    const made = odd.headers.get('x-request-id')
    expect(made).toMatch(/^[0-9a-f]{20}-[0-9a-z]+$/)
    expect(await contextOf(((await odd.json()) as Job).id)).toEqual({ requestId: made })
  })
})

describe('Idempotency-Key', () => {
  it('makes one job of fifty requests at the same time, all with the same answer', async () => {
    const before = await api.count()
    const key = { 'idempotency-key': 'fifty' }
    const answers = await Promise.all(Array.from({ length: 50 }, () => api.post(good, key)))
    const texts = await Promise.all(answers.map((answer) => answer.text()))
    expect(answers.map((answer) => answer.status)).toEqual(answers.map(() => 202))
    expect(new Set(texts).size).toBe(1)
    expect(await api.count()).toBe(before + 1)
    const first = answers.filter((answer) => answer.headers.get('idempotency-replayed') === null)
    expect(first).toHaveLength(1)
    const entries = await api.backend.counts('default')
    expect((await take(good, key)).id).toBe((JSON.parse(texts[0] ?? '') as Job).id)
    expect((await api.backend.counts('default')).waiting).toBe(entries.waiting)
  })

  it('refuses another body with 409 and takes nothing', async () => {
    await take([good, good], { 'idempotency-key': 'batch' })
    const before = await api.count()
    const response = await api.post([good], { 'idempotency-key': 'batch' })
    expect(await problem(response)).toMatchObject({ status: 409, code: 'IDEMPOTENCY_KEY_REUSED' })
    expect(await api.count()).toBe(before)
  })

  it('belongs to the API key that sent it, and an error does not use it up', async () => {
    const key = { 'idempotency-key': 'mine' }
    const mine = await take(good, key)
    const response = await api.request('/v1/jobs', {
      method: 'POST',
      key: operator,
      body: JSON.stringify({ ...good, payload: { to: 'other' } }),
      headers: { 'content-type': 'application/json', ...key },
    })
    expect(response.status).toBe(202)
    expect(((await response.json()) as Job).id).not.toBe(mine.id)
    const later = { 'idempotency-key': 'later' }
    expect((await api.post({ name: 'mail', payload: {} }, later)).status).toBe(400)
    await take(good, later)
  })

  it('with a taken dedupe key needs no second connection: more requests than connections do not starve', async () => {
    const dedupeKey = randomUUID()
    const began = performance.now()
    const answers = await Promise.all(
      Array.from({ length: 40 }, () => take({ ...good, dedupeKey }, { 'idempotency-key': randomUUID() })),
    )
    expect(new Set(answers.map((answer) => answer.id)).size).toBe(1)
    expect(answers.filter((answer) => answer.duplicate !== true)).toHaveLength(1)
    expect(new Set(answers.map((answer) => answer.state))).toEqual(new Set(['waiting']))
    // Whoever waited for a connection that only its fellows could give back waited for 5 s.
    expect(performance.now() - began).toBeLessThan(4_500)
  })

  it('hands its job to the queue at once', async () => {
    const before = (await api.backend.counts('other')).waiting
    await take({ name: 'any', payload: 1 }, { 'idempotency-key': 'at-once' })
    await expect.poll(async () => (await api.backend.counts('other')).waiting).toBe(before + 1)
  })
})

describe('reading and steering', () => {
  it('lists by state, name and queue, page by page, without a repetition or a gap', async () => {
    const ids = new Set<string>()
    for (let index = 0; index < 7; index++)
      ids.add((await take({ name: 'any', payload: index, delayMs: 9e6 })).id)
    const seen: string[] = []
    let cursor: string | undefined
    do {
      const query = `state=delayed&name=any&queue=other&limit=3${cursor ? `&cursor=${cursor}` : ''}`
      const response = await api.request(`/v1/jobs?${query}`, { key: viewer })
      const page = (await response.json()) as { jobs: Job[]; cursor?: string }
      seen.push(...page.jobs.map((job) => job.id))
      cursor = page.cursor
    } while (cursor)
    expect(seen.filter((id) => ids.has(id)).sort()).toEqual([...ids].sort())
    expect(new Set(seen).size).toBe(seen.length)
  })

  it('cancels a waiting job at once and asks for an active one', async () => {
    const waiting = await take()
    const cancel = (id: string): Promise<Response> =>
      api.request(`/v1/jobs/${id}`, { method: 'DELETE', key: operator })
    const answer = await cancel(waiting.id)
    expect([answer.status, ((await answer.json()) as Job).state]).toEqual([200, 'cancelled'])
    expect(await problem(await cancel(waiting.id))).toMatchObject({ status: 409, code: 'JOB_FINISHED' })
    const active = await take()
    await run(active.id)
    const asked = await cancel(active.id)
    expect([asked.status, ((await asked.json()) as Job).state]).toEqual([202, 'active'])
    expect(await api.ledger.cancelRequested([active.id])).toEqual([active.id])
    expect((await cancel(randomUUID())).status).toBe(404)
  })

  it('retries what is finished, and says who did it', async () => {
    const { id } = await take()
    const retry = (headers = {}): Promise<Response> =>
      api.request(`/v1/jobs/${id}/retry`, { method: 'POST', key: operator, headers })
    expect(await problem(await retry())).toMatchObject({ status: 409, code: 'JOB_NOT_FINISHED' })
    const error = { code: 'BROKEN', message: 'it broke', stack: 'at secret/file.ts' }
    await api.ledger.finish(id, await run(id), { kind: 'failed', error })
    expect((await read(id))['error']).toEqual({ code: 'BROKEN', message: 'it broke' })
    // Many clients send a media type although they send no body.
    const answer = await retry({ 'content-type': 'application/json' })
    expect([answer.status, ((await answer.json()) as Job).state]).toEqual([202, 'waiting'])
    const { rows } = await api.postgres.query('SELECT actor, action FROM audit_log WHERE subject = $1', [id])
    expect(rows).toEqual([{ actor: 'BATON_API_KEYS operator', action: 'job.retry' }])
  })
})

describe('acts that cannot be told of', () => {
  it('are not done: an answer of 503 means that nothing was changed', async () => {
    const away = (): Promise<never> => Promise.reject(DATABASE_UNAVAILABLE({ reason: 'a test' }))
    const mute = await startHarness({ audit: { record: away, list: away } })
    try {
      const take = async (): Promise<string> =>
        ((await (await mute.post({ name: 'mail', payload: { to: 'a' } })).json()) as Job).id
      const ask = async (method: string, path: string): Promise<number> =>
        (await mute.request(path, { method, key: operator })).status
      const [open, ended] = [await take(), await take()]
      await mute.ledger.cancel(ended)
      expect(await ask('DELETE', `/v1/jobs/${open}`)).toBe(503)
      expect(await ask('POST', `/v1/jobs/${ended}/retry`)).toBe(503)
      expect((await mute.ledger.get(open))?.state).toBe('waiting')
      expect((await mute.ledger.get(ended))?.state).toBe('cancelled')
    } finally {
      await mute.close()
    }
  })
})

describe('events', () => {
  it('tell progress and the end, then close', async () => {
    const { id } = await take()
    const events = await readEvents(api, id)
    expect((await events.next()).data).toMatchObject({ id, state: 'waiting' })
    const token = await run(id)
    expect((await events.next()).data).toMatchObject({ state: 'active' })
    await api.ledger.saveProgress(id, token, { rows: 5 })
    expect(await events.next()).toMatchObject({ event: 'progress', data: { progress: { rows: 5 } } })
    await api.ledger.finish(id, token, { kind: 'completed', result: { n: 1 } })
    expect(await events.next()).toMatchObject({
      event: 'end',
      id: 'end',
      data: { state: 'completed', result: { n: 1 } },
    })
    expect(await events.ended).toBe(true)
  })

  it('of a finished job are its end, and a client that saw it is told to stop', async () => {
    const { id } = await take()
    await api.ledger.finish(id, await run(id), { kind: 'completed', result: null })
    const events = await readEvents(api, id)
    expect((await events.next()).event).toBe('end')
    expect(await events.ended).toBe(true)
    const again = await api.request(`/v1/jobs/${id}/events`, {
      key: viewer,
      headers: { 'last-event-id': 'end' },
    })
    expect(again.status).toBe(204)
    const odd = await readEvents(api, id, { 'last-event-id': 'nonsense' })
    expect((await odd.next()).event).toBe('end')
    await odd.ended
    expect((await api.request(`/v1/jobs/${randomUUID()}/events`, { key: viewer })).status).toBe(404)
  })

  it('of many watchers cost one statement a look, and none when nobody watches', async () => {
    const ids = await Promise.all(Array.from({ length: 5 }, async () => (await take()).id))
    const statements: string[] = []
    const looks = (): number => statements.filter((each) => each.includes('FROM jobs WHERE id = ANY')).length
    const query = api.postgres.pool.query.bind(api.postgres.pool) as (...args: unknown[]) => unknown
    Object.assign(api.postgres.pool, {
      query: (...args: unknown[]) => {
        statements.push(String(args[0]))
        return query(...args)
      },
    })
    try {
      const streams = await Promise.all(
        ids.flatMap((id) => Array.from({ length: 4 }, () => readEvents(api, id))),
      )
      for (const stream of streams) await stream.next()
      const before = looks()
      await new Promise((resolve) => setTimeout(resolve, 1_100))
      const during = looks() - before
      expect(during).toBeGreaterThanOrEqual(2)
      // Twenty watchers, and two or three looks.
      expect(during).toBeLessThan(10)
      for (const stream of streams) stream.leave()
      await expect.poll(async () => (await metric('baton_event_streams')) ?? 0).toBe(0)
      const after = looks()
      await new Promise((resolve) => setTimeout(resolve, 600))
      expect(looks() - after).toBeLessThanOrEqual(1)
    } finally {
      Object.assign(api.postgres.pool, { query })
    }
  })
})

async function metric(name: string): Promise<number | undefined> {
  const text = await (await api.request('/metrics', { key: viewer })).text()
  const value = new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]
  return value === undefined ? undefined : Number(value)
}
