import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { newId } from '../../../src/core/ids.ts'
import { copyIn } from '../../../src/platform/postgres/copy-in.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createLedger } from '../../../src/platform/queues/ledger-postgres.ts'
import { createSite, type Site } from '../../../src/platform/replication/site.ts'
import { testDatabase } from '../../support/databases.ts'

const clock = createSystemClock()
let postgres: Postgres
let site: Site

beforeAll(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 10, applicationName: 'test', onError: () => undefined })
  site = createSite({ postgres })
  await site.lead()
})
afterAll(() => postgres.close())

const run = (sql: string, values?: unknown[]) => postgres.query(sql, values)
/** What the statements since the last call have put there, each object once. */
const captured = async (): Promise<string[]> => {
  const { rows } = await postgres.query<{ type: string; id: string; shard: number; right: number }>(
    `WITH taken AS (DELETE FROM change_pending RETURNING *)
     SELECT DISTINCT type, id, shard, change_shard(change_anchor(type, id)) AS right FROM taken ORDER BY type, id`,
  )
  for (const row of rows) expect(row.shard).toBe(row.right)
  return rows.map(({ type, id }) => `${type} ${id}`)
}
/** What these statements are captured as; `setUp` is not. */
const capturedBy = async (sql: string, ...more: string[]): Promise<string[]> => {
  await captured()
  for (const statement of [sql, ...more]) await run(statement)
  return captured()
}

const job = '00000000-0000-7000-8000-00000000000'
const addJob = (n: number) =>
  `INSERT INTO jobs (id, name, queue, payload) VALUES ('${job}${n}', 'a', 'q', '{}')`
const addPush = (n: number, device: string) =>
  `INSERT INTO pushes (id, device, shard, state, priority, expires_at, due_at)
   VALUES ('${job}${n}', '${device}', 0, 'pending', true, now() + interval '1 day', now())`
const body = (digit: string) => digit.repeat(64)

beforeEach(async () => {
  await run('DELETE FROM jobs')
  await run('DELETE FROM pushes')
  await run('DELETE FROM devices')
  await run('DELETE FROM states')
  await run('DELETE FROM state_devices')
  await run('DELETE FROM state_links')
  await run('DELETE FROM bodies')
  await captured()
})

describe('the capture of jobs', () => {
  it('sees rows that come and go', async () => {
    expect(await capturedBy(addJob(1), addJob(2))).toEqual([`job ${job}1`, `job ${job}2`])
    expect(await capturedBy(`DELETE FROM jobs WHERE id = '${job}1'`)).toEqual([`job ${job}1`])
    expect(await capturedBy(`${addJob(2)} ON CONFLICT (id) DO NOTHING`)).toEqual([])
    expect(await capturedBy(`${addJob(2)} ON CONFLICT (id) DO UPDATE SET outcome = 'completed'`)).toEqual([
      `job ${job}2`,
    ])
  })

  it.each([
    `outcome = 'failed', finished_at = now()`,
    `run_at = now() + interval '1 hour'`,
    'attempts = attempts + 1',
    'interruptions = interruptions + 1',
    'crashes = crashes + 1',
    'cancel_requested_at = now()',
    'retried = retried + 1',
    `payload = '{"other": 1}'`,
    `dedupe_key = 'k'`,
    'priority = 9',
    `name = 'b', queue = 'r'`,
  ])('sees that %s', async (change) => {
    await run(addJob(1))
    expect(await capturedBy(`UPDATE jobs SET ${change}`)).toEqual([`job ${job}1`])
  })

  it('sees what is written to a finished job, and both names of one that gets another id', async () => {
    await run(addJob(1))
    await run(`UPDATE jobs SET outcome = 'completed', finished_at = now()`)
    expect(await capturedBy(`UPDATE jobs SET result = '1'`)).toEqual([`job ${job}1`])
    expect(await capturedBy(`UPDATE jobs SET id = '${job}3'`)).toEqual([`job ${job}1`, `job ${job}3`])
  })

  it('does not see a start, progress, a checkpoint, or whether a queue has it', async () => {
    await run(addJob(1))
    const token = newId(1)
    const started = `SELECT * FROM jobs_start('{${job}1}', '{${token}}', '{runner}')`
    const noted = `SELECT jobs_note('{${job}1}', '{${token}}', '{1}', '{2}', true)`
    expect(await capturedBy(started, noted, 'UPDATE jobs SET queued = false')).toEqual([])
    const finished = `SELECT jobs_finish('{${job}1}', '{${token}}', '{completed}', '{1}', '{null}', '{null}', '{1}', '{0}')`
    expect(await capturedBy(finished)).toEqual([`job ${job}1`])
  })
})

describe('the capture of devices and pushes', () => {
  const addDevice = `INSERT INTO devices (id, shard, user_id) VALUES ('d1', 0, 'u')`
  const addTransport = `INSERT INTO transports (device, position, kind, address, options) VALUES ('d1', 0, 'webhook', 'x', '{}')`

  it('sees a device, its transports and its groups as the device', async () => {
    expect(await capturedBy(addDevice)).toEqual(['device d1'])
    expect(await capturedBy(addTransport)).toEqual(['device d1'])
    expect(await capturedBy(`UPDATE transports SET dead_at = now()`)).toEqual(['device d1'])
    expect(await capturedBy('DELETE FROM transports')).toEqual(['device d1'])
    expect(await capturedBy(`INSERT INTO device_groups (device, group_id) VALUES ('d1', 'g')`)).toEqual([
      'device d1',
    ])
    expect(await capturedBy(`UPDATE device_groups SET group_id = 'h'`)).toEqual(['device d1'])
    expect(await capturedBy('DELETE FROM device_groups')).toEqual(['device d1'])
    expect(await capturedBy(`UPDATE devices SET user_id = 'v'`)).toEqual(['device d1'])
    expect(await capturedBy('UPDATE devices SET generation = generation + 1')).toEqual(['device d1'])
    expect(await capturedBy(`UPDATE devices SET id = 'd2'`)).toEqual(['device d1', 'device d2'])
    expect(await capturedBy(`DELETE FROM devices`)).toEqual(['device d2'])
  })

  it('sees a device whose transports went by a cascade', async () => {
    await run(addDevice)
    await run(addTransport)
    expect(await capturedBy('DELETE FROM devices')).toEqual(['device d1'])
  })

  it('does not see that a device listens or was seen, and how fast it comes back', async () => {
    await run(addDevice)
    const change = `UPDATE devices SET seen_at = now(), listen_id = gen_random_uuid(), listen_node = 'n',
      reconnect_ms = 7, delivery_seq = delivery_seq + 1, answered_seq = 1, flood_at = now()`
    expect(await capturedBy(change)).toEqual([])
  })

  it('sees a push that comes, is claimed, sent, closed and gone', async () => {
    const push = [`push ${job}1/d/1`]
    expect(await capturedBy(addPush(1, 'd/1'))).toEqual(push)
    expect(await capturedBy('UPDATE pushes SET hop = 1')).toEqual(push)
    expect(await capturedBy(`UPDATE pushes SET send_id = gen_random_uuid()`)).toEqual(push)
    expect(await capturedBy(`UPDATE pushes SET sent_at = now()`)).toEqual(push)
    expect(await capturedBy(`UPDATE pushes SET closed_at = now(), state = 'confirmed'`)).toEqual(push)
    expect(await capturedBy(`UPDATE pushes SET payload = '1'`)).toEqual(push)
    expect(await capturedBy(`DELETE FROM pushes`)).toEqual(push)
    const again = `${addPush(2, 'd1')} ON CONFLICT (id, device) DO NOTHING`
    expect(await capturedBy(again)).toEqual([`push ${job}2/d1`])
    expect(await capturedBy(again)).toEqual([])
  })

  it('does not see that a push was delivered, or is being sent', async () => {
    await run(addPush(1, 'd1'))
    const delivered = `UPDATE pushes SET state = 'delivered', delivered_at = now(), delivered_seq = 1, log = '[{}]'`
    expect(await capturedBy(delivered)).toEqual([])
    await run(`UPDATE pushes SET state = 'due', due_at = now()`)
    const leased = `UPDATE pushes SET state = 'sending', lease = gen_random_uuid(), attempts = 1, due_at = now(), log = '[]'`
    expect(await capturedBy(leased)).toEqual([])
  })
})

describe('the capture of states and bodies', () => {
  const touch = `INSERT INTO state_devices (device) VALUES ('p')
    ON CONFLICT (device) DO UPDATE SET version = state_devices.version + 1`
  const addState = (counter: number) =>
    `INSERT INTO states (device, uuid, type, counter, data, sha256, version, updated_at)
     VALUES ('p', '', '', ${counter}, '', '', 1, now())`

  it('sees every write of a device, its links, and who writes past its version', async () => {
    expect(await capturedBy(touch)).toEqual(['states p'])
    expect(await capturedBy(touch)).toEqual(['states p'])
    expect(await capturedBy(addState(1))).toEqual(['states p'])
    expect(await capturedBy(`UPDATE states SET data = 'x'`)).toEqual(['states p'])
    expect(await capturedBy('DELETE FROM states')).toEqual(['states p'])
    const link = `INSERT INTO state_links (user_name, device) VALUES ('u', 'p') ON CONFLICT DO NOTHING`
    expect(await capturedBy(link)).toEqual(['states p'])
    expect(await capturedBy(link)).toEqual([])
    expect(await capturedBy(`UPDATE state_links SET device = 'q'`)).toEqual(['states p', 'states q'])
    expect(await capturedBy('DELETE FROM state_links')).toEqual(['states q'])
    expect(await capturedBy('DELETE FROM state_devices')).toEqual(['states p'])
  })

  it('sees what is copied in', async () => {
    await captured()
    const lines = async function* () {
      yield Buffer.from('p1\np2\n')
    }
    await postgres.transaction((client) => copyIn(client, 'COPY state_devices (device) FROM STDIN', lines()))
    expect(await captured()).toEqual(['states p1', 'states p2'])
  })

  it('sees a body when a store has it and when it is condemned, not while it is put or checked', async () => {
    const add = `INSERT INTO bodies (id, size, chunks) VALUES ('${body('a')}', 1, '')`
    const seen = [`body ${body('a')}`]
    expect(await capturedBy(add)).toEqual(seen)
    expect(await capturedBy(`UPDATE bodies SET stores = '{s1}'`)).toEqual(seen)
    expect(
      await capturedBy(`UPDATE bodies SET stores = '{s1,s2}', touched_at = now(), checked_at = now()`),
    ).toEqual([])
    expect(await capturedBy(`UPDATE bodies SET condemned_at = now()`)).toEqual(seen)
    expect(await capturedBy(`UPDATE bodies SET condemned_at = NULL`)).toEqual(seen)
    expect(await capturedBy(`UPDATE bodies SET size = 2`)).toEqual(seen)
    expect(await capturedBy(`DELETE FROM bodies`)).toEqual(seen)
  })
})

describe('a transaction', () => {
  it('that rolls back leaves nothing, also in part', async () => {
    await captured()
    await postgres
      .transaction(async (client) => {
        await client.query(addJob(1))
        throw new Error('not this one')
      })
      .catch(() => undefined)
    expect(await captured()).toEqual([])
    await postgres.transaction(async (client) => {
      await client.query('SAVEPOINT s')
      await client.query(addJob(1))
      await client.query('ROLLBACK TO SAVEPOINT s')
      await client.query(addJob(2))
    })
    expect(await captured()).toEqual([`job ${job}2`])
  })

  it('that applies what a leader sent is not captured', async () => {
    await captured()
    await postgres.transaction(async (client) => {
      await client.query(`SELECT set_config('baton.applying', 'on', true)`)
      await client.query(addJob(1))
    })
    await run(addJob(2))
    expect(await captured()).toEqual([`job ${job}2`])
  })

  it('cannot truncate what is captured', async () => {
    await expect(run('TRUNCATE jobs')).rejects.toThrow('would not reach the replicas')
  })

  it('takes jobs in by the ledger: a batch is one capture of each', async () => {
    await captured()
    const ledger = createLedger({ postgres, clock })
    const row = { name: 'a', queue: 'q', payload: {}, priority: 0, maxAttempts: 1, delayMs: 0, queued: true }
    const rows = [newId(1), newId(2)].map((id) => ({ ...row, id, context: { requestId: 'r' } }))
    await ledger.insert(rows)
    expect(await captured()).toEqual(rows.map(({ id }) => `job ${id}`).toSorted())
  })
})

describe('a site that is alone', () => {
  it('captures nothing, and takes truncates', async () => {
    const { url } = await testDatabase()
    const alone = createPostgres({ url, max: 1, applicationName: 'test', onError: () => undefined })
    await alone.query(addJob(1))
    await alone.query(addPush(1, 'd'))
    await alone.query('TRUNCATE jobs')
    expect((await alone.query('SELECT FROM change_pending')).rows).toEqual([])
    // Also not disabled: Postgres would gather for them what a statement inserts.
    const triggers = await alone.query(`SELECT tgname FROM pg_trigger WHERE starts_with(tgname, 'change_')`)
    expect(triggers.rows).toEqual([])
    await alone.close()
  })
})
