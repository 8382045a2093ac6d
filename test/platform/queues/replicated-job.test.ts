import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createReplicatedJob } from '../../../src/platform/queues/replicated-job.ts'
import {
  applying,
  exerciseReplicatedType,
  oddInstant,
  oddJson,
  oddText,
  rowsWithout,
  twoSites,
} from '../../contracts/replicated.ts'

const small = fc.integer({ min: 0, max: 32_767 })
const orNone = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | null> => fc.option(arbitrary, { nil: null })

const jobs = fc.record({
  name: oddText(),
  queue: oddText(),
  payload: oddJson,
  priority: fc.integer({ min: -2_147_483_648, max: 2_147_483_647 }),
  dedupe_key: orNone(fc.uuid()),
  context: orNone(oddJson),
  enqueued_at: oddInstant,
  run_at: oddInstant,
  attempts: small,
  crashes: small,
  cancel_requested_at: orNone(oddInstant),
  outcome: fc.constantFrom(null, 'completed', 'failed', 'cancelled'),
  result: orNone(oddJson),
  error: orNone(oddJson),
  finished_at: orNone(oddInstant),
  started_at: orNone(oddInstant),
  run_token: orNone(fc.uuid()),
})

async function create() {
  const { source, replica, drop } = await twoSites()
  const put = async (shape: Record<string, unknown>): Promise<string> => {
    const id = randomUUID()
    const columns = ['id', ...Object.keys(shape)]
    await source.query(
      `INSERT INTO jobs (${columns.join()}) VALUES (${columns.map((_column, index) => `$${index + 1}`).join()})`,
      [id, ...Object.values(shape)],
    )
    return id
  }
  return {
    source: { type: createReplicatedJob(), postgres: source },
    replica: { type: createReplicatedJob(), postgres: replica },
    shapes: jobs,
    put,
    change: async (id: string) => {
      await source.query('UPDATE jobs SET attempts = attempts + 1 WHERE id = $1', [id])
    },
    stir: async (id: string) => {
      await source.query(
        `UPDATE jobs SET run_token = gen_random_uuid(), runner = 'r', progress = '1', checkpoint = '2',
           queued = NOT queued, started_at = now() WHERE id = $1 AND outcome IS NULL`,
        [id],
      )
    },
    destroy: async (id: string) => {
      await source.query('DELETE FROM jobs WHERE id = $1', [id])
    },
    rows: async (id: string, postgres: Postgres) => {
      const local = ['run_token', 'runner', 'progress', 'checkpoint', 'queued']
      const [row] = await rowsWithout(local, postgres, 'SELECT * FROM jobs WHERE id = $1', [id])
      return [{ ...row, started_at: row?.['outcome'] === null ? null : row?.['started_at'] }]
    },
    strangers: [randomUUID(), 'not a uuid', ''],
    release: drop,
  }
}

exerciseReplicatedType('job', create)

describe('a job on a replica', () => {
  it('waits to be handed to a queue, and no run holds it', async () => {
    const { source, replica, put, release } = await create()
    const shape = { name: 'a', queue: 'q', payload: '{}', run_token: randomUUID(), started_at: 'now' }
    const id = await put(shape)
    const image = (await source.type.read([id], source.postgres)).get(id)
    const rowOf = async () =>
      (
        await replica.postgres.query(
          'SELECT run_token, runner, started_at, progress, queued FROM jobs WHERE id = $1',
          [id],
        )
      ).rows
    const free = { run_token: null, runner: null, started_at: null, progress: null, queued: false }
    const arrival = { id, content: image?.content ?? '', parts: [] }
    await applying(replica.postgres, (client) => replica.type.apply(arrival, client))
    expect(await rowOf()).toEqual([free])
    // What a run left that this site had when it led.
    await applying(replica.postgres, (client) =>
      client.query(
        `UPDATE jobs SET run_token = gen_random_uuid(), runner = 'r', progress = '1', queued = true`,
      ),
    )
    await applying(replica.postgres, (client) => replica.type.apply(arrival, client))
    expect(await rowOf()).toEqual([free])
    await release()
  })

  it('is refused by name while another one has its dedupe key', async () => {
    const { source, replica, put, release } = await create()
    const copy = async (id: string): Promise<void> => {
      const content = (await source.type.read([id], source.postgres)).get(id)?.content ?? ''
      await applying(replica.postgres, (client) => replica.type.apply({ id, content, parts: [] }, client))
    }
    const shape = { name: 'a', queue: 'q', payload: '{}', dedupe_key: 'k' }
    const first = await put(shape)
    await copy(first)
    await source.postgres.query(`UPDATE jobs SET outcome = 'completed', finished_at = now() WHERE id = $1`, [
      first,
    ])
    const second = await put(shape)
    await expect(copy(second)).rejects.toMatchObject({ code: 'JOB_KEY_TAKEN' })
    await copy(first)
    await copy(second)
    const { rows } = await replica.postgres.query('SELECT id FROM jobs WHERE outcome IS NULL')
    expect(rows).toEqual([{ id: second }])
    await release()
  })
})
