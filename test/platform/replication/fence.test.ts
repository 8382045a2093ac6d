import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { codeOf } from '../../../src/core/errors.ts'
import { type Client, createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createSite, type Site } from '../../../src/platform/replication/site.ts'
import { testDatabase } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'

let postgres: Postgres
let site: Site

beforeEach(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 60, applicationName: 'test', onError: () => undefined })
  site = createSite({ postgres })
  await site.lead()
})
afterEach(() => postgres.close())

const addDevice = `INSERT INTO devices (id, shard) VALUES ($1, 0)`
const devices = async (): Promise<string[]> =>
  (await postgres.query<{ id: string }>('SELECT id FROM devices ORDER BY id')).rows.map(({ id }) => id)
const codeFrom = (work: Promise<unknown>): Promise<string | undefined> => work.then(() => 'done', codeOf)

interface Writer {
  /** When its statement is through. */
  written: Promise<void>
  commit(): void
  done: Promise<string | undefined>
}
/** A transaction that stays open after `work` until it is told to commit. */
function write(work: (client: Client) => Promise<unknown>): Writer {
  const written = Promise.withResolvers<void>()
  const go = Promise.withResolvers<void>()
  const transaction = postgres.transaction(async (client) => {
    await work(client)
    written.resolve()
    await go.promise
  })
  transaction.catch(() => written.resolve())
  return { written: written.promise, commit: () => go.resolve(), done: codeFrom(transaction) }
}
const fenceWaits = () =>
  eventually(async () => {
    const { rows } = await postgres.query(
      `SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND NOT granted`,
    )
    expect(rows).toHaveLength(1)
  })

describe('the fence', () => {
  it('waits for writers under way; what comes after is refused as SITE_CLOSED, and says when to come again', async () => {
    const writer = write((client) => client.query(addDevice, ['before']))
    await writer.written
    const closing = site.close(20_000)
    await fenceWaits()
    writer.commit()
    await closing
    expect(await writer.done).toBe('done')
    await expect(postgres.query(addDevice, ['after'])).rejects.toMatchObject({
      code: 'SITE_CLOSED',
      traits: { status: 503, retry: 'after' },
      retryAfterMs: 5_000,
    })
    expect(await codeFrom(postgres.transaction((client) => client.query(addDevice, ['after'])))).toBe(
      'SITE_CLOSED',
    )
    expect(await devices()).toEqual(['before'])
  })

  it('lets a statement by that touches no row, and reads', async () => {
    await site.close(1_000)
    await postgres.query('DELETE FROM devices')
    expect(await devices()).toEqual([])
  })

  it('is between all of 50 writers at once and nobody: each is before, or refused', async () => {
    let closed = false
    const late: string[] = []
    const attempts = Array.from({ length: 50 }, async (_each, n) => {
      const written: string[] = []
      for (let turn = 0; ; turn++) {
        const id = `${n}-${turn}`
        const code = await codeFrom(
          postgres.transaction(async (client) => {
            await client.query(addDevice, [id])
            await client.query('UPDATE devices SET user_id = $1 WHERE id = $2', ['u', id])
          }),
        )
        if (code === 'done' && closed) late.push(id)
        if (code !== 'done') return { written, code }
        written.push(id)
      }
    })
    await eventually(async () => expect((await devices()).length).toBeGreaterThan(100))
    await site.close(20_000)
    const seen = await devices()
    closed = true
    const results = await Promise.all(attempts)
    expect(results.map(({ code }) => code)).toEqual(results.map(() => 'SITE_CLOSED'))
    expect(await devices()).toEqual(seen)
    expect(results.flatMap(({ written }) => written).toSorted()).toEqual(seen.toSorted())
    expect(late.filter((id) => !seen.includes(id))).toEqual([])
    const { rows } = await postgres.query('SELECT DISTINCT id FROM change_pending')
    expect(rows).toHaveLength(seen.length)
  })

  it('gives up after its limit, names who writes, and the site goes on', async () => {
    const writer = write((client) => client.query(addDevice, ['slow']))
    await writer.written
    const before = await site.read()
    await expect(site.close(400)).rejects.toThrow(
      /could not be closed within 400 ms, since others still write: test \(process \d+, for \d+ s\)/,
    )
    expect(await codeFrom(site.close(1))).toBe('SITE_BUSY')
    expect(await site.read()).toEqual(before)
    await postgres.query(addDevice, ['other'])
    writer.commit()
    expect(await writer.done).toBe('done')
  })

  it('lets others write between its tries, so that one long transaction does not stop a whole site', async () => {
    const long = write((client) => client.query(addDevice, ['long']))
    await long.written
    const closing = codeFrom(site.close(3_000))
    await fenceWaits()
    await postgres.query(addDevice, ['meanwhile'])
    long.commit()
    expect(await closing).toBe('done')
    expect(await devices()).toEqual(['long', 'meanwhile'])
  })

  it('does not stand still for ever when a writer waits for the row of another, who waits behind the closing', async () => {
    await postgres.query(addDevice, ['d1'])
    const goOn = Promise.withResolvers<void>()
    const holder = write(async (client) => {
      await client.query(`SELECT FROM devices WHERE id = 'd1' FOR UPDATE`)
      await goOn.promise
      // Meets the fence only now.
      await client.query(addDevice, ['d3'])
    })
    const waiting = write(async (client) => {
      await client.query(addDevice, ['d2'])
      await client.query(`UPDATE devices SET user_id = 'u' WHERE id = 'd1'`)
    })
    await eventually(async () => {
      const { rows } = await postgres.query(
        `SELECT FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted`,
      )
      expect(rows).toHaveLength(1)
    })
    const closing = codeFrom(site.close(15_000))
    await fenceWaits()
    goOn.resolve()
    holder.commit()
    waiting.commit()
    expect(await Promise.all([closing, holder.done, waiting.done])).toEqual(['done', 'done', 'done'])
    expect(await devices()).toEqual(['d1', 'd2', 'd3'])
  })

  it('is passed by a transaction that applies, and by no other once that is over', async () => {
    await site.close(1_000)
    await postgres.transaction(async (client) => {
      await client.query(`SELECT set_config('baton.applying', 'on', true)`)
      await client.query(addDevice, ['sent'])
    })
    const results = await Promise.all(
      Array.from({ length: 20 }, (_each, n) => codeFrom(postgres.query(addDevice, [`own ${n}`]))),
    )
    expect(new Set(results)).toEqual(new Set(['SITE_CLOSED']))
    expect(await devices()).toEqual(['sent'])
  })

  it('is met again by a connection that was let by before', async () => {
    const { url } = postgres
    const one = createPostgres({ url, max: 1, applicationName: 'one', onError: () => undefined })
    await one.transaction(async (client) => {
      await client.query(addDevice, ['a'])
      await client.query(addDevice, ['b'])
    })
    await site.close(1_000)
    expect(await codeFrom(one.query(addDevice, ['c']))).toBe('SITE_CLOSED')
    await one.close()
  })

  it('is met again after a roll-back to a savepoint, which gave the lock back', async () => {
    const writer = write(async (client) => {
      await client.query('SAVEPOINT s')
      await client.query(addDevice, ['undone'])
      await client.query('ROLLBACK TO SAVEPOINT s')
      await site.close(2_000)
      await client.query(addDevice, ['late'])
    })
    writer.commit()
    expect(await writer.done).toBe('SITE_CLOSED')
    expect(await devices()).toEqual([])
  })

  it('is kept by functions with settings of their own, for as long as the transaction lasts', async () => {
    const writer = write(async (client) => {
      await client.query(`INSERT INTO jobs (id, name, queue, payload, run_token)
        VALUES ('00000000-0000-7000-8000-000000000001', 'a', 'q', '{}', '00000000-0000-7000-8000-000000000002')`)
      await client.query(`SELECT jobs_finish('{00000000-0000-7000-8000-000000000001}',
        '{00000000-0000-7000-8000-000000000002}', '{completed}', '{1}', '{null}', '{null}', '{1}', '{0}')`)
    })
    await writer.written
    expect(await codeFrom(site.close(300))).toBe('SITE_BUSY')
    writer.commit()
    expect(await writer.done).toBe('done')
  })

  it('refuses a transaction that sees an older site than there is', async () => {
    const started = Promise.withResolvers<void>()
    const go = Promise.withResolvers<void>()
    const writer = postgres.transaction(async (client) => {
      await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ')
      await client.query('SELECT FROM devices')
      started.resolve()
      await go.promise
      await client.query(addDevice, ['stale'])
    })
    await started.promise
    await site.close(1_000)
    go.resolve()
    expect(await codeFrom(writer)).toBe('40001')
    expect(await devices()).toEqual([])
  })
})
