import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { newId } from '../../../src/core/ids.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import type { Ledger, NewJob, Run } from '../../../src/platform/queues/ledger.ts'
import { createLedger } from '../../../src/platform/queues/ledger-postgres.ts'
import { testDatabase } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'

const clock = createSystemClock()
let url: string
let postgres: Postgres
let ledger: Ledger

const open = (): Postgres =>
  createPostgres({ url, max: 12, applicationName: 'test', onError: () => undefined })

beforeAll(async () => {
  url = (await testDatabase()).url
  postgres = open()
})
afterAll(() => postgres.close())
beforeEach(async () => {
  await postgres.query('TRUNCATE jobs, nodes')
  ledger = createLedger({ postgres, clock })
})

const newJob = (more: Partial<NewJob> = {}): NewJob => ({
  id: newId(clock.now()),
  name: 'report',
  queue: 'default',
  payload: {},
  priority: 0,
  maxAttempts: 3,
  delayMs: 0,
  queued: true,
  ...more,
})
const add = async (more: Partial<NewJob> = {}): Promise<string> => {
  const job = newJob(more)
  await ledger.insert([job])
  return job.id
}
const runOf = (runner = 'runner'): Run => ({ token: randomUUID(), runner })
const live = (...runners: string[]) =>
  postgres.query(
    `INSERT INTO nodes (id, kind, host, pid, version, state, runners) VALUES ('n', 'worker', 'h', 1, '1', 'ready', $1)
     ON CONFLICT (id) DO UPDATE SET runners = $1, heartbeat_at = now()`,
    [runners],
  )
const silence = (ms: number) =>
  postgres.query(`UPDATE nodes SET heartbeat_at = now() - $1 * interval '1 millisecond'`, [ms])
const error = { code: 'JOB_FAILED', message: 'no paper' }
const row = async (id: string): Promise<Record<string, unknown>> =>
  (await postgres.query('SELECT * FROM jobs WHERE id = $1', [id])).rows[0] ?? {}

describe('an insert', () => {
  it.each([
    ['alike', { context: { requestId: 'r "1", \\' } }],
    ['not alike', {}],
  ])('keeps any payload byte for byte, in rows that are %s', async (_what, more) => {
    const payloads: unknown[] = [
      { nul: 'a\0b', half: '\ud800', both: '😀', quote: '"\\\n' },
      JSON.parse('{"__proto__":{"x":1},"constructor":2}'),
      [1e300, -0.5, Number.MAX_SAFE_INTEGER, 5e-324, null, true, []],
      'text',
      null,
      { deep: JSON.parse('['.repeat(500) + ']'.repeat(500)) },
    ]
    const jobs = payloads.map((payload) => newJob({ payload, ...more }))
    await ledger.insert(jobs)
    for (const job of jobs) {
      const started = await ledger.start(job.id, runOf())
      expect(started.kind).toBe('started')
      expect(JSON.stringify((started as { payload: unknown }).payload)).toBe(JSON.stringify(job.payload))
      expect((started as { context: unknown }).context).toEqual(job.context)
    }
  })

  it.each([
    ['a number that is not finite', JSON.parse('{"a":[{"b":1e400}]}')],
    [
      'a cycle',
      (() => {
        const a: Record<string, unknown> = {}
        a['a'] = a
        return a
      })(),
    ],
    ['a BigInt', { n: 1n }],
    ['nesting beyond what Postgres reads', JSON.parse('['.repeat(9_000) + ']'.repeat(9_000))],
  ])('refuses %s', async (_what, payload) => {
    await expect(ledger.insert([newJob({ payload })])).rejects.toMatchObject({ code: 'INPUT_INVALID' })
  })

  it('takes all rows of a call or none', async () => {
    const good = newJob()
    const twin = newJob({ id: good.id })
    await expect(ledger.insert([good, twin])).rejects.toMatchObject({ code: 'INPUT_INVALID' })
    expect(await ledger.get(good.id)).toBeUndefined()
  })

  it('tells the delay by the clock of the database', async () => {
    const [soon, at] = await ledger.insert([
      newJob({ delayMs: 5_000 }),
      newJob({ runAt: clock.now() + 60_000 }),
    ])
    expect(soon).toMatchObject({ duplicate: false })
    expect(soon?.delayMs).toBeGreaterThan(4_900)
    expect(soon?.delayMs).toBeLessThanOrEqual(5_000)
    expect(at?.delayMs).toBeGreaterThan(58_000)
    expect(at?.delayMs).toBeLessThanOrEqual(60_000)
  })

  it('gives fifty who come at once with one key the same job, and one row', async () => {
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => ledger.insert([newJob({ dedupeKey: 'k' })])),
    )
    const ids = new Set(answers.flat().map(({ id }) => id))
    expect(ids.size).toBe(1)
    expect(answers.flat().filter(({ duplicate }) => !duplicate)).toHaveLength(1)
    expect((await ledger.list({ limit: 10 })).jobs).toHaveLength(1)
  })

  it('gives two batches with the same keys in another order their answers', async () => {
    const keys = Array.from({ length: 40 }, (_, index) => `k${index}`)
    const batch = (order: string[]) => ledger.insert(order.map((dedupeKey) => newJob({ dedupeKey })))
    const [one, two] = await Promise.all([batch(keys), batch(keys.toReversed())])
    expect(one.map(({ id }) => id)).toEqual(two.toReversed().map(({ id }) => id))
  })

  it('frees a key when its job is finished, and tells keys of different jobs apart', async () => {
    const id = await add({ dedupeKey: 'k' })
    expect((await ledger.insert([newJob({ dedupeKey: 'k', name: 'other' })]))[0]).toMatchObject({
      duplicate: false,
    })
    const run = runOf()
    await ledger.start(id, run)
    await ledger.finish(id, run.token, { kind: 'completed', result: undefined })
    expect((await ledger.insert([newJob({ dedupeKey: 'k' })]))[0]).toMatchObject({ duplicate: false })
  })

  it('takes keys that no index could hold', async () => {
    for (const dedupeKey of ['a\0b', 'x'.repeat(100_000), '\ud800']) {
      const [first] = await ledger.insert([newJob({ dedupeKey })])
      const [second] = await ledger.insert([newJob({ dedupeKey })])
      expect(second).toMatchObject({ id: first?.id, duplicate: true })
    }
  })
})

describe('a start', () => {
  it('gives what a run needs', async () => {
    const id = await add({ payload: { a: 1 }, context: { requestId: 'r' } })
    expect(await ledger.start(id, runOf())).toEqual({
      kind: 'started',
      payload: { a: 1 },
      attempt: 1,
      maxAttempts: 3,
      interruptions: 0,
      crashes: 0,
      checkpoint: undefined,
      context: { requestId: 'r' },
    })
  })

  it('lets one of many through', async () => {
    await live('a', 'b')
    const id = await add()
    const kinds = await Promise.all(
      Array.from({ length: 20 }, (_, index) => ledger.start(id, runOf(index % 2 ? 'a' : 'b'))),
    )
    expect(kinds.filter(({ kind }) => kind === 'started')).toHaveLength(1)
    expect(kinds.filter(({ kind }) => kind === 'held')).toHaveLength(19)
  })

  it('says early, missing and finished', async () => {
    const later = await add({ delayMs: 60_000 })
    const early = await ledger.start(later, runOf())
    expect(early.kind).toBe('early')
    expect((early as { ms: number }).ms).toBeGreaterThan(59_000)
    expect(await ledger.start(newId(1), runOf())).toEqual({ kind: 'missing' })
    const id = await add()
    const run = runOf()
    await ledger.start(id, run)
    await ledger.finish(id, run.token, { kind: 'completed', result: 1 })
    expect(await ledger.start(id, runOf())).toEqual({ kind: 'finished' })
  })

  it('may be repeated with its token, as after an answer that was lost', async () => {
    await live('runner')
    const id = await add()
    const run = runOf()
    expect((await ledger.start(id, run)).kind).toBe('started')
    expect((await ledger.start(id, run)).kind).toBe('started')
    expect((await ledger.get(id))?.interruptions).toBe(0)
  })

  it('takes back a row that is held in its own name by a start that nobody knows of', async () => {
    await live('runner')
    const id = await add()
    const lost = createLedger({ postgres, clock })
    expect((await lost.start(id, runOf())).kind).toBe('started')
    expect((await ledger.start(id, runOf())).kind).toBe('started')
    expect(await ledger.get(id)).toMatchObject({ interruptions: 0, state: 'active' })
    expect((await ledger.start(id, runOf())).kind).toBe('held')
  })

  it('leaves a live run alone for 4 s without a heartbeat, then releases it as a crash', async () => {
    await live('holder')
    const id = await add()
    const held = runOf('holder')
    await ledger.start(id, held)
    await silence(3_500)
    expect((await ledger.start(id, runOf('other'))).kind).toBe('held')
    await silence(4_100)
    const taken = runOf('other')
    expect(await ledger.start(id, taken)).toMatchObject({ kind: 'started', interruptions: 1, attempt: 1 })
    expect(await ledger.finish(id, held.token, { kind: 'completed', result: 1 })).toBe(false)
    expect(await ledger.saveProgress(id, held.token, 5)).toBe(false)
    expect(await ledger.finish(id, taken.token, { kind: 'completed', result: 2 })).toBe(true)
    expect((await ledger.get(id))?.result).toBe(2)
  })

  it('counts a crash once, however many release it', async () => {
    const id = await add()
    await ledger.start(id, runOf('dead'))
    const others = Array.from({ length: 10 }, () => createLedger({ postgres, clock }))
    await live(...others.map((_, index) => `alive ${index}`))
    const results = await Promise.all([
      ...others.map((each, index) => each.start(id, runOf(`alive ${index}`))),
      ledger.releaseRunner('dead'),
    ])
    expect(
      results.slice(0, 10).filter((each) => (each as { kind: string }).kind === 'started').length,
    ).toBeLessThan(2)
    expect(await row(id)).toMatchObject({ crashes: 1, interruptions: 1 })
  })

  it('counts no crash for a runner that was ended on purpose, however often', async () => {
    const id = await add()
    for (let stop = 1; stop <= 6; stop++) {
      expect((await ledger.start(id, runOf(`ended ${stop}`))).kind).toBe('started')
      expect(await ledger.releaseRunner(`ended ${stop}`, 'interruption')).toEqual([id])
      expect(await row(id)).toMatchObject({ crashes: 0, interruptions: stop, outcome: null })
    }
  })

  it('sets a job aside that took its process down five times', async () => {
    const id = await add({ dedupeKey: 'k' })
    for (let crash = 0; crash < 5; crash++) {
      expect((await ledger.start(id, runOf(`dead ${crash}`))).kind).toBe('started')
    }
    expect(await ledger.start(id, runOf())).toEqual({ kind: 'poison' })
    expect(await ledger.start(id, runOf())).toEqual({ kind: 'finished' })
    expect(await ledger.get(id)).toMatchObject({
      state: 'failed',
      attempts: 0,
      interruptions: 5,
      error: { code: 'JOB_POISONOUS' },
    })
  })

  it('starts and finishes hundreds at once in few statements', async () => {
    const jobs = Array.from({ length: 500 }, () => newJob())
    await ledger.insert(jobs)
    await Promise.all(
      jobs.map(async ({ id }) => {
        const run = runOf()
        expect((await ledger.start(id, run)).kind).toBe('started')
        expect(await ledger.finish(id, run.token, { kind: 'completed', result: { ok: true } })).toBe(true)
      }),
    )
    const { rows } = await postgres.query(`SELECT count(*)::int AS n FROM jobs WHERE outcome = 'completed'`)
    expect(rows[0]).toEqual({ n: 500 })
  })

  it('stays on its page, as does progress, and never reads the table', async () => {
    // Sessions tell their counts late, so a database that no other test has written to.
    const fresh = createPostgres({
      url: (await testDatabase()).url,
      max: 4,
      applicationName: 'test',
      onError: () => undefined,
    })
    onTestFinished(fresh.close)
    const book = createLedger({ postgres: fresh, clock })
    // As a worker that begins with nothing to do: its plans are made while the table is nearly empty.
    for (let index = 0; index < 10; index++) {
      const job = newJob()
      const run = runOf()
      await book.insert([job])
      await book.start(job.id, run)
      await book.finish(job.id, run.token, { kind: 'completed', result: 1 })
    }
    const counted = async () => {
      const { rows } = await fresh.query<{ updates: number; hot: number; read: number }>(
        `SELECT n_tup_upd::int AS updates, n_tup_hot_upd::int AS hot, seq_tup_read::int AS read
         FROM pg_stat_user_tables WHERE relname = 'jobs'`,
      )
      return rows[0] ?? { updates: 0, hot: 0, read: 0 }
    }
    const before = await eventually(async () => {
      const now = await counted()
      expect(now.updates).toBe(20)
      return now
    })
    // On a busy machine a statement that waits for its turn keeps its snapshot, and no page gives room back meanwhile.
    let [hot, sum] = [0, 0]
    for (let round = 1; round <= 3 && hot <= 1_200 * 0.85; round += 1) {
      await runMany(book)
      const after = await eventually(async () => {
        const now = await counted()
        expect(now.updates).toBe(before.updates + round * 1_800)
        return now
      })
      // Nothing but the key finds the rows of a run.
      expect(after.read).toBe(0)
      hot = Math.max(hot, after.hot - before.hot - sum)
      sum = after.hot - before.hot
    }
    // The third update of a row finishes it and moves it to another index, so two of three can stay.
    expect(hot).toBeGreaterThan(1_200 * 0.85)
  })
})

/** 600 runs, 20 at once, with three updates each. */
async function runMany(book: Ledger): Promise<void> {
  const jobs = Array.from({ length: 600 }, () => newJob({ payload: { text: 'x'.repeat(200) } }))
  await book.insert(jobs)
  const queue = jobs.values()
  const work = async (): Promise<void> => {
    for (const { id } of queue) {
      const run = runOf()
      await book.start(id, run)
      await book.saveProgress(id, run.token, 50)
      await book.finish(id, run.token, { kind: 'completed', result: 1 })
    }
  }
  await Promise.all(Array.from({ length: 20 }, work))
}

describe('the end of a run', () => {
  const started = async (more: Partial<NewJob> = {}): Promise<{ id: string; token: string }> => {
    const id = await add(more)
    const run = runOf()
    expect((await ledger.start(id, run)).kind).toBe('started')
    return { id, token: run.token }
  }

  it('keeps a result of any JSON', async () => {
    const { id, token } = await started()
    await ledger.finish(id, token, { kind: 'completed', result: { nul: '\0' } })
    expect(await ledger.get(id)).toMatchObject({ state: 'completed', attempts: 1, result: { nul: '\0' } })
    expect((await ledger.get(id))?.finishedAt).toMatch(/^\d{4}-.*Z$/)
  })

  it('retries: an attempt used, due after its pause, the error shown', async () => {
    const { id, token } = await started()
    await ledger.finish(id, token, { kind: 'retry', error, delayMs: 60_000 })
    expect(await ledger.get(id)).toMatchObject({ state: 'delayed', attempts: 1, error })
    expect((await ledger.start(id, runOf())).kind).toBe('early')
  })

  it('snoozes and is interrupted without an attempt used', async () => {
    const snoozed = await started()
    await ledger.finish(snoozed.id, snoozed.token, { kind: 'snooze', delayMs: 60_000 })
    expect(await ledger.get(snoozed.id)).toMatchObject({ state: 'delayed', attempts: 0 })
    const { id, token } = await started()
    await ledger.saveCheckpoint(id, token, { line: 7 })
    await ledger.finish(id, token, { kind: 'interrupted' })
    expect(await ledger.get(id)).toMatchObject({ state: 'waiting', attempts: 0, interruptions: 1 })
    expect(await ledger.start(id, runOf())).toMatchObject({ attempt: 1, checkpoint: { line: 7 } })
  })

  it('finishes with the writes of the handler or not at all', async () => {
    const { id, token } = await started()
    const failing = postgres.transaction(async (client) => {
      expect(await ledger.finishWith(client, id, token, { kind: 'completed', result: 1 })).toBe(true)
      throw new Error('roll back')
    })
    await expect(failing).rejects.toThrow('roll back')
    expect((await ledger.get(id))?.state).toBe('active')
    await postgres.transaction(async (client) => {
      expect(await ledger.finishWith(client, id, token, { kind: 'completed', result: 1 })).toBe(true)
    })
    expect((await ledger.get(id))?.state).toBe('completed')
    expect(await ledger.finish(id, token, { kind: 'completed', result: 2 })).toBe(false)
  })

  it('shows the last progress and the last checkpoint of a burst', async () => {
    const { id, token } = await started()
    const saved = await Promise.all([
      ...Array.from({ length: 30 }, (_, index) => ledger.saveProgress(id, token, index)),
      ledger.saveCheckpoint(id, token, { at: 1 }),
      ledger.saveCheckpoint(id, token, { at: 2 }),
    ])
    expect(saved.every(Boolean)).toBe(true)
    expect(await row(id)).toMatchObject({ progress: 29, checkpoint: { at: 2 } })
  })

  it('does not make others pay for a result that Postgres refuses', async () => {
    const good = await started()
    const bad = await started()
    const deep = JSON.parse('['.repeat(9_000) + ']'.repeat(9_000)) as unknown
    const [fine, refused] = await Promise.allSettled([
      ledger.finish(good.id, good.token, { kind: 'completed', result: 1 }),
      ledger.finish(bad.id, bad.token, { kind: 'completed', result: deep }),
    ])
    expect(fine).toEqual({ status: 'fulfilled', value: true })
    expect(refused).toMatchObject({ status: 'rejected', reason: { code: 'INPUT_INVALID' } })
  })
})

describe('a cancel', () => {
  it('finishes at once what nobody runs, asks whoever runs it, and knows the rest', async () => {
    const waiting = await add()
    expect(await ledger.cancel(waiting)).toBe('cancelled')
    expect(await ledger.cancel(waiting)).toBe('finished')
    expect(await ledger.get(waiting)).toMatchObject({ state: 'cancelled' })
    expect(await ledger.cancel(newId(1))).toBe('missing')
    const id = await add()
    const run = runOf()
    await ledger.start(id, run)
    expect(await ledger.cancel(id)).toBe('requested')
    expect(await ledger.cancelRequested([id, waiting])).toEqual([id])
    await ledger.finish(id, run.token, { kind: 'cancelled', reason: 'asked' })
    expect(await ledger.get(id)).toMatchObject({
      state: 'cancelled',
      error: { code: 'JOB_CANCELLED', message: 'asked' },
    })
    expect(await ledger.cancelRequested([id])).toEqual([])
  })

  it('is not forgotten when the run goes back or dies instead', async () => {
    const ids = await Promise.all([add(), add(), add()])
    const [retried, interrupted, crashed] = ids
    const run = runOf('dead')
    for (const id of ids) {
      await ledger.start(id, { ...run, token: id })
      await ledger.cancel(id)
    }
    await ledger.finish(retried, retried, { kind: 'retry', error, delayMs: 10 })
    await ledger.finish(interrupted, interrupted, { kind: 'interrupted' })
    expect(await ledger.releaseRunner('dead')).toEqual([crashed])
    const ended = await add()
    await ledger.start(ended, { ...run, token: ended })
    await ledger.cancel(ended)
    expect(await ledger.releaseRunner('dead', 'interruption')).toEqual([ended])
    for (const id of [...ids, ended]) expect((await ledger.get(id))?.state).toBe('cancelled')
  })

  it('comes too late for a run that completes', async () => {
    const id = await add()
    const run = runOf()
    await ledger.start(id, run)
    await ledger.cancel(id)
    await ledger.finish(id, run.token, { kind: 'completed', result: 1 })
    expect((await ledger.get(id))?.state).toBe('completed')
  })
})

describe('a retry by hand', () => {
  const failed = async (more: Partial<NewJob> = {}): Promise<string> => {
    const id = await add(more)
    const run = runOf()
    await ledger.start(id, run)
    await ledger.finish(id, run.token, { kind: 'failed', error })
    return id
  }

  it('sets a finished job back, for the reconciler to add', async () => {
    const id = await failed({ payload: { a: 1 } })
    expect(await ledger.retry(id)).toBe('retried')
    expect(await ledger.retry(id)).toBe('unfinished')
    expect(await ledger.retry(newId(1))).toBe('missing')
    expect(await ledger.get(id)).toMatchObject({
      state: 'waiting',
      attempts: 0,
      retried: 1,
      payload: { a: 1 },
    })
    expect(await row(id)).toMatchObject({ queued: false, finished_at: null })
  })

  it('gives up a dedupe key that another has by now', async () => {
    const id = await failed({ dedupeKey: 'k' })
    const [holder] = await ledger.insert([newJob({ dedupeKey: 'k' })])
    expect(await ledger.retry(id)).toBe('retried')
    expect((await ledger.insert([newJob({ dedupeKey: 'k' })]))[0]?.id).toBe(holder?.id)
  })

  it('retries all that match, a portion at a time', async () => {
    for (let index = 0; index < 5; index++) await failed({ dedupeKey: 'same', name: 'a' })
    await failed({ name: 'b' })
    expect(await ledger.retryFailed({ name: 'a' }, 3)).toBe(3)
    expect(await ledger.retryFailed({ name: 'a', queue: 'default' }, 10)).toBe(2)
    expect(await ledger.retryFailed({ name: 'a' }, 10)).toBe(0)
    expect((await ledger.list({ state: 'failed', limit: 10 })).jobs).toHaveLength(1)
  })
})

describe('a look at the ledger', () => {
  it('walks every list to its end, each job once', async () => {
    await live('runner')
    const jobs = Array.from({ length: 23 }, (_, index) =>
      newJob({ name: index % 2 ? 'a' : 'b', queue: index % 3 ? 'x' : 'y' }),
    )
    await ledger.insert(jobs)
    await ledger.insert(Array.from({ length: 7 }, () => newJob({ delayMs: 60_000 })))
    for (const [index, { id }] of jobs.slice(0, 15).entries()) {
      const run = runOf()
      await ledger.start(id, run)
      if (index < 5) await ledger.finish(id, run.token, { kind: 'completed', result: index })
      else if (index < 9) await ledger.finish(id, run.token, { kind: 'failed', error })
    }
    const walk = async (filter: Parameters<Ledger['list']>[0]): Promise<string[]> => {
      const ids: string[] = []
      for (let cursor: string | undefined; ; ) {
        const page = await ledger.list({ ...filter, ...(cursor ? { cursor } : {}) })
        ids.push(...page.jobs.map(({ id }) => id))
        cursor = page.cursor
        if (!cursor) return ids
      }
    }
    const counts: [object, number][] = [
      [{}, 30],
      [{ state: 'waiting' }, 8],
      [{ state: 'delayed' }, 7],
      [{ state: 'active' }, 6],
      [{ state: 'completed' }, 5],
      [{ state: 'failed' }, 4],
      [{ state: 'cancelled' }, 0],
      [{ name: 'a', state: 'waiting' }, 4],
      [{ name: 'b', queue: 'y' }, 4],
    ]
    for (const [filter, count] of counts) {
      const ids = await walk({ ...filter, limit: 3 })
      expect({ filter, found: ids.length, distinct: new Set(ids).size }).toEqual({
        filter,
        found: count,
        distinct: count,
      })
    }
    expect((await walk({ limit: 4 })).toSorted().toReversed()).toEqual(await walk({ limit: 30 }))
    expect((await ledger.summary()).states).toEqual({
      waiting: 8,
      delayed: 7,
      active: 6,
      completed: 5,
      failed: 4,
      cancelled: 0,
    })
    expect(await ledger.summary()).toMatchObject({
      exact: true,
      perMinute: { completed: 5, failed: 4, accepted: 30 },
    })
  })

  it.each(['x', Buffer.from('a|b|c').toString('base64url'), Buffer.from('2020|x').toString('base64url')])(
    'refuses %s for a cursor',
    async (cursor) => {
      await expect(ledger.list({ limit: 1, cursor })).rejects.toMatchObject({ code: 'INPUT_INVALID' })
      await expect(ledger.list({ limit: 1, state: 'failed', cursor })).rejects.toMatchObject({
        code: 'INPUT_INVALID',
      })
    },
  )

  it('finds nothing by what is no id', async () => {
    expect(await ledger.get("'; DROP TABLE jobs")).toBeUndefined()
    expect(await ledger.getMany(['x', newId(1)])).toEqual([])
  })

  it('tells how long the oldest due job has waited', async () => {
    expect((await ledger.summary()).oldestWaitingMs).toBe(0)
    await add({ runAt: clock.now() - 5_000 })
    expect((await ledger.summary()).oldestWaitingMs).toBeGreaterThan(4_900)
  })
})

describe('pruning', () => {
  it('deletes what finished long ago, a portion at a time, and nothing else', async () => {
    const end = async (kind: 'completed' | 'failed'): Promise<string> => {
      const id = await add()
      const run = runOf()
      await ledger.start(id, run)
      await ledger.finish(id, run.token, kind === 'failed' ? { kind, error } : { kind, result: 1 })
      return id
    }
    const completed = await Promise.all([end('completed'), end('completed'), end('completed')])
    const failed = await end('failed')
    const waiting = await add()
    await postgres.query(`UPDATE jobs SET finished_at = now() - interval '1 hour' WHERE outcome IS NOT NULL`)
    const young = await end('completed')
    const retention = { finishedMs: 60_000, failedMs: 7_200_000 }
    expect(await ledger.prune(retention, 2)).toBe(2)
    expect(await ledger.prune(retention, 100)).toBe(1)
    expect(await ledger.getMany(completed)).toEqual([])
    expect(await ledger.getMany([failed, waiting, young])).toHaveLength(3)
    expect(await ledger.prune({ finishedMs: 60_000, failedMs: 60_000 }, 100)).toBe(1)
  })
})

describe('a crash of Postgres', () => {
  it('is told as such, and nobody waits for ever', async () => {
    const lonely = createPostgres({
      url: 'postgres://x:x@127.0.0.1:1/x',
      max: 2,
      applicationName: 'test',
      onError: () => undefined,
    })
    const away = createLedger({ postgres: lonely, clock })
    await expect(away.start(newId(1), runOf())).rejects.toMatchObject({ code: 'DATABASE_UNAVAILABLE' })
    await expect(away.insert([newJob()])).rejects.toMatchObject({ code: 'DATABASE_UNAVAILABLE' })
    await expect(away.finish(newId(1), randomUUID(), { kind: 'interrupted' })).rejects.toMatchObject({
      code: 'DATABASE_UNAVAILABLE',
    })
    await lonely.close()
  })
})
