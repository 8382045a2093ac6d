import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createIdempotency, type IdempotentRequest } from '../../../src/runtime/web/idempotency.ts'
import { testDatabase } from '../../support/databases.ts'

let postgres: Postgres
const request: IdempotentRequest = { owner: 'a', key: 'k', route: 'POST /x', body: '{}' }
let made = 0
let nextKey = 0
const fresh = (): IdempotentRequest => ({ ...request, key: `key-${nextKey++}` })
const work = async () => ({ status: 202, text: `{"n":${++made}}` })

beforeAll(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 5, applicationName: 'test', onError: () => undefined })
})
afterAll(() => postgres.close())

describe('idempotency', () => {
  it('gives the first answer again, byte for byte', async () => {
    const { once } = createIdempotency({ postgres })
    const mine = fresh()
    const text = '{"b":1,  "a":[2]}'
    expect(await once(mine, async () => ({ status: 202, text }))).toEqual({
      status: 202,
      text,
      replayed: false,
    })
    expect(await once(mine, work)).toEqual({ status: 202, text, replayed: true })
  })

  it('does the work once for fifty at the same time, in three processes', async () => {
    const processes = Array.from({ length: 3 }, () => createIdempotency({ postgres }))
    const mine = fresh()
    const before = made
    const answers = await Promise.all(
      Array.from({ length: 50 }, async (_each, index) => processes[index % 3]?.once(mine, work)),
    )
    expect(made).toBe(before + 1)
    expect(new Set(answers.map((answer) => answer?.text)).size).toBe(1)
    expect(answers.filter((answer) => answer?.replayed === false)).toHaveLength(1)
  })

  it('lets those who wait for the first hold no connection', async () => {
    const { once } = createIdempotency({ postgres })
    const mine = fresh()
    const gate = Promise.withResolvers<void>()
    const slow = once(mine, async () => {
      await gate.promise
      return work()
    })
    const others = Array.from({ length: 20 }, () => once(mine, work))
    // The pool has five: twenty waiters in it would leave none for this.
    await postgres.query('SELECT 1')
    expect(postgres.load()).toMatchObject({ waiting: 0 })
    gate.resolve()
    await Promise.all([slow, ...others])
  })

  it('refuses the key for another body or route, but not for another client', async () => {
    const { once } = createIdempotency({ postgres })
    const mine = fresh()
    await once(mine, work)
    await expect(once({ ...mine, body: '[]' }, work)).rejects.toMatchObject({
      code: 'IDEMPOTENCY_KEY_REUSED',
    })
    await expect(once({ ...mine, route: 'POST /y' }, work)).rejects.toMatchObject({
      code: 'IDEMPOTENCY_KEY_REUSED',
    })
    expect(await once({ ...mine, owner: 'b', body: '[]' }, work)).toMatchObject({ replayed: false })
    const both = fresh()
    const [first, second] = await Promise.allSettled([once(both, work), once({ ...both, body: '[]' }, work)])
    expect([first.status, second.status]).toEqual(['fulfilled', 'rejected'])
  })

  it('keeps nothing of work that failed, neither its rows nor the key', async () => {
    const { once } = createIdempotency({ postgres })
    const mine = fresh()
    const failing = once(mine, async (client) => {
      await client.query("INSERT INTO audit_log (actor, action, subject) VALUES ('x', 'x', 'half done')")
      throw new Error('died')
    })
    await expect(failing).rejects.toThrow('died')
    const { rows } = await postgres.query("SELECT FROM audit_log WHERE subject = 'half done'")
    expect(rows).toHaveLength(0)
    expect(await once(mine, work)).toMatchObject({ replayed: false })
  })

  it('takes a key anew after 24 hours, and forgets old ones', async () => {
    const { once, prune } = createIdempotency({ postgres })
    const mine = fresh()
    await once(mine, work)
    const age = (): Promise<unknown> =>
      postgres.query("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = $1", [
        mine.key,
      ])
    await age()
    expect(await once({ ...mine, body: '[]' }, work)).toMatchObject({ replayed: false })
    expect(await prune(100)).toBe(0)
    await age()
    expect(await prune(100)).toBe(1)
  })
})
