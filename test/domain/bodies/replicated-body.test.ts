import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import fc from 'fast-check'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { sha256 } from '../../../src/core/digest.ts'
import { type Bodies, createBodies } from '../../../src/domain/bodies/bodies.ts'
import { createReplicatedBody } from '../../../src/domain/bodies/replicated-body.ts'
import { createDirectoryStore } from '../../../src/domain/bodies/stores/directory.ts'
import type { Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createApplyingPostgres } from '../../../src/platform/replication/applying.ts'
import {
  applying,
  exerciseReplicatedType,
  rowsWithout,
  type TypeUnderTest,
  twoSites,
} from '../../contracts/replicated.ts'

interface Shape {
  bytes: Uint8Array
  /** Days since the last put. */
  age: number
}

const shapes: fc.Arbitrary<Shape> = fc.record({
  bytes: fc.oneof(
    fc.uint8Array({ maxLength: 5_000 }),
    // Around the size of a chunk; 1 MiB.
    fc.constantFrom(0, 1).map((more) => randomBytes(1_048_576 + more)),
  ),
  age: fc.nat(400),
})

interface Made extends TypeUnderTest<Shape> {
  here: Bodies
  there: Bodies
}

async function create(): Promise<Made> {
  const { source, replica, drop } = await twoSites()
  const folder = await mkdtemp(join(tmpdir(), 'baton-replicated-'))
  const opened: Bodies[] = []
  const open = (site: string, postgres: Postgres): Bodies => {
    const clock = createSystemClock()
    const stores = ['a', 'b'].map((name) =>
      createDirectoryStore({ root: join(folder, site, name), clock, name }),
    )
    const bodies = createBodies({
      stores,
      postgres,
      clock,
      log: pino({ level: 'silent' }),
      spoolFolder: folder,
    })
    opened.push(bodies)
    return bodies
  }
  const siteOf = (name: string, postgres: Postgres) => {
    const bodies = open(name, postgres)
    const arriving = open(name, createApplyingPostgres(postgres))
    return { bodies, type: createReplicatedBody({ postgres, bodies, arriving }), postgres }
  }
  const [{ bodies: here, ...first }, { bodies: there, ...second }] = [
    siteOf('here', source),
    siteOf('there', replica),
  ]
  return {
    source: first,
    replica: second,
    here,
    there,
    shapes,
    put: async ({ bytes, age }) => {
      // Equal bytes are one body, and each sample is to be one of its own.
      const { id } = await here.put(Readable.from([randomBytes(8), bytes]))
      await source.query(`UPDATE bodies SET touched_at = now() - $2 * interval '1 day' WHERE id = $1`, [
        id,
        age,
      ])
      return id
    },
    change: async (id) => {
      await source.query(`UPDATE bodies SET touched_at = touched_at + interval '1 day' WHERE id = $1`, [id])
    },
    stir: async (id) => {
      await source.query(
        `UPDATE bodies SET checked_at = now(), stores = stores || '{c}',
           touched_at = date_trunc('day', touched_at, 'UTC') + interval '1 s' WHERE id = $1`,
        [id],
      )
    },
    destroy: async (id) => {
      await source.query('UPDATE bodies SET condemned_at = now() WHERE id = $1', [id])
    },
    rows: (id, postgres) =>
      rowsWithout(
        ['stores', 'created_at', 'touched_at', 'checked_at'],
        postgres,
        'SELECT * FROM bodies WHERE id = $1',
        [id],
      ),
    strangers: [sha256('nobody'), 'no id', ''],
    release: async () => {
      for (const bodies of opened) await bodies.close()
      await drop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

exerciseReplicatedType('body', create)

describe('a body on a replica', () => {
  const bytesOf = async (bodies: Bodies, id: string): Promise<Buffer> => {
    const { stream } = await bodies.get(id)
    return Buffer.concat((await stream.toArray()) as Buffer[])
  }
  const applyTo = async ({ source, replica }: Made, id: string): Promise<void> => {
    const content = (await source.type.read([id], source.postgres)).get(id)?.content ?? ''
    await applying(replica.postgres, (client) => replica.type.apply({ id, content, parts: [] }, client))
  }
  const send = async ({ source, replica }: Made, id: string): Promise<void> => {
    const opened = await source.type.open?.(id)
    if (opened) await replica.type.receive?.(id, opened.size, opened.bytes)
  }

  it('has its bytes, in two copies; only a condemned one is gone, and it is not opened for that', async () => {
    const made = await create()
    const { here, there, source, replica } = made
    const bytes = randomBytes(3_000_000)
    const { id } = await here.put(Readable.from([bytes]))
    await expect(applyTo(made, id)).rejects.toMatchObject({ code: 'BODY_INCOMPLETE' })
    expect(await replica.type.has?.([id, sha256('x')])).toEqual(new Set())
    await send(made, id)
    expect(await replica.type.has?.([id])).toEqual(new Set([id]))
    await applyTo(made, id)
    expect((await bytesOf(there, id)).equals(bytes)).toBe(true)
    expect((await there.stat(id)).copies).toBe(2)
    await source.postgres.query('UPDATE bodies SET condemned_at = now()')
    expect(await source.type.open?.(id)).toBeUndefined()
    expect(await source.type.open?.(sha256('x'))).toBeUndefined()
    await made.release()
  })

  it('keeps nothing of bytes that are not those of the id, too few or too many', async () => {
    const made = await create()
    const { replica, there } = made
    const id = createHash('sha256').update('right').digest('hex')
    for (const bytes of ['wrong', 'righ', 'right and more', '']) {
      await expect(replica.type.receive?.(id, 5, Readable.from([Buffer.from(bytes)]))).rejects.toMatchObject({
        code: 'BODY_INCOMPLETE',
      })
    }
    await expect(replica.type.receive?.(id, 4, Readable.from([Buffer.from('right')]))).rejects.toThrow(
      'not the body',
    )
    expect((await replica.postgres.query('SELECT id FROM bodies')).rows).toEqual([])
    await expect(there.stat(id)).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
    await made.release()
  })

  it('is taken with one copy while a store is away, and the other one is wished for', async () => {
    const made = await create()
    const { here, replica } = made
    const { id } = await here.put(Readable.from([randomBytes(10)]))
    await replica.postgres.query(`INSERT INTO body_stores (name, identity) VALUES ('b', 'another place')`)
    await send(made, id)
    await applyTo(made, id)
    const { rows } = await replica.postgres.query(
      'SELECT stores, reason FROM bodies JOIN body_repairs ON body = id',
    )
    expect(rows).toEqual([{ stores: ['a'], reason: 'a copy is missing' }])
    await made.release()
  })

  it('is captured like any other once the site leads', async () => {
    const made = await create()
    const { replica } = made
    await replica.postgres.query(`UPDATE site SET role = 'leader', intake = 'open', epoch = 2`)
    await replica.type.receive?.(sha256('x'), 1, Readable.from([Buffer.from('x')]))
    const { rows } = await replica.postgres.query('SELECT DISTINCT type, id FROM change_pending')
    expect(rows).toEqual([{ type: 'body', id: sha256('x') }])
    await made.release()
  })

  it('is as safe from a sweep as at the source, and is revived', async () => {
    const made = await create()
    const { here, there, replica } = made
    const { id } = await here.put(Readable.from([randomBytes(10)]))
    await send(made, id)
    await applying(replica.postgres, (client) => client.query('UPDATE bodies SET condemned_at = now()'))
    await applyTo(made, id)
    await replica.postgres.query(`UPDATE site SET role = 'leader', intake = 'open', epoch = 2`)
    // Whatever was put a moment ago is old to this sweep.
    const report = await there.upkeep.sweep({
      retentionMs: 0,
      graceMs: 60_000,
      keepReferenced: async () => undefined,
    })
    expect(report).toMatchObject({ condemned: 0, removed: 0 })
    expect(await replica.type.scan(undefined, 10, replica.postgres)).toEqual([id])
    await made.release()
  })
})
