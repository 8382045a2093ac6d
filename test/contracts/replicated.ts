import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createPostgres, type Postgres, type Queryable } from '../../src/platform/postgres/postgres.ts'
import type { ReplicatedType } from '../../src/platform/replication/replicated.ts'
import { testDatabase } from '../support/databases.ts'

/** One of the two sites: the type as this site has it, and its database. */
export interface ReplicatedSite {
  type: ReplicatedType
  postgres: Postgres
}

export interface SamplesOf<Shape> {
  /** Any object, odd values included. */
  shapes: fc.Arbitrary<Shape>
  /** Writes an object at the source, as who uses Baton would or by its rows. @returns its id */
  put(shape: Shape): Promise<string>
  /** Changes what is copied of an object. */
  change(id: string): Promise<void>
  /** Changes what only the source has. Undefined: there is nothing of the kind. */
  stir?(id: string): Promise<void>
  /** Removes the object at the source, as a user or as retention would. */
  destroy(id: string): Promise<void>
  /**
   * The rows of an object without what is local to a site, whatever other columns there are: one that is added to a
   * table and not copied makes the two sides differ.
   */
  rows(id: string, postgres: Postgres): Promise<Record<string, unknown>[]>
  /** Ids that nobody has; of other forms too. */
  strangers: string[]
}

export interface TypeUnderTest<Shape> extends SamplesOf<Shape> {
  source: ReplicatedSite
  replica: ReplicatedSite
  release(): Promise<void>
}

/** Two databases, with capture on: the first leads, the second is closed to all but what is applied. */
export async function twoSites(): Promise<{ source: Postgres; replica: Postgres; drop(): Promise<void> }> {
  const lineage = randomUUID()
  const open = async (role: 'leader' | 'replica', intake: 'open' | 'closed'): Promise<Postgres> => {
    const { url } = await testDatabase()
    const postgres = createPostgres({ url, max: 4, applicationName: 'sync test', onError: () => undefined })
    await postgres.query('UPDATE site SET role = $1, intake = $2, lineage = $3', [role, intake, lineage])
    await postgres.query('SELECT change_capture(true)')
    return postgres
  }
  const [source, replica] = [await open('leader', 'open'), await open('replica', 'closed')]
  return {
    source,
    replica,
    drop: async () => void (await Promise.all([source.close(), replica.close()])),
  }
}

/** Rows without the columns that are named. */
export async function rowsWithout(
  local: string[],
  postgres: Postgres,
  sql: string,
  values: unknown[],
): Promise<Record<string, unknown>[]> {
  const { rows } = await postgres.query<Record<string, unknown>>(sql, values)
  return rows.map((row) =>
    Object.fromEntries(Object.entries(row).filter(([column]) => !local.includes(column))),
  )
}

/** As the receiver does it. */
export const applying = <T>(postgres: Postgres, work: (client: Queryable) => Promise<T>): Promise<T> =>
  postgres.transaction(async (client) => {
    await client.query(`SELECT set_config('baton.applying', 'on', true)`)
    return work(client)
  })

/** Text that makes trouble where bytes, JSON or collations are not taken care of. No NUL: a text of Postgres has none. */
export const oddText = (maxLength = 60): fc.Arbitrary<string> =>
  fc.oneof(
    { weight: 3, arbitrary: fc.string({ unit: 'binary', minLength: 1, maxLength }).map(withoutNul) },
    fc.constantFrom(
      'a',
      'B',
      'ß',
      'ä/ö',
      '…',
      '"\\"',
      "'; --",
      '\u{1f4a9}',
      'e\u0301',
      '\u00e9',
      'İ',
      '%00',
      '{}',
    ),
  )

const withoutNul = (text: string): string => text.replaceAll('\0', '-')

/** JSON as text: whoever parses it on the way changes some of these. */
export const oddJson: fc.Arbitrary<string> = fc.oneof(
  fc.json(),
  fc.constantFrom(
    'null',
    '""',
    '{ "a" : 1, "a" : 2 }',
    '1e400',
    '123456789012345678901234567890.10',
    '"\\u0000 and \\ud800"',
    '{"b":1,"a":[ ]}',
    '1.0',
    '-0',
    `"${'long '.repeat(20_000)}"`,
    '[1,\n2]',
  ),
)

/** As Postgres takes it. */
export const oddInstant: fc.Arbitrary<string> = fc.oneof(
  fc
    .tuple(fc.integer({ min: 0, max: 4_102_444_800 }), fc.integer({ min: 0, max: 999_999 }))
    .map(
      ([seconds, micros]) =>
        `${new Date(seconds * 1_000).toISOString().slice(0, 19)}.${String(micros).padStart(6, '0')}Z`,
    ),
  fc.constantFrom(
    'infinity',
    '-infinity',
    'epoch',
    '0044-03-15 12:00:00.000001+00 BC',
    '12345-01-01 00:00:00.1+00',
  ),
)

/** What every type of objects has to do so that sites can copy it. */
export function exerciseReplicatedType<Shape>(
  name: string,
  create: () => Promise<TypeUnderTest<Shape>>,
): void {
  describe(`the replicated type ${name}`, () => {
    let made: TypeUnderTest<Shape>
    let source: ReplicatedSite
    let replica: ReplicatedSite

    beforeAll(async () => {
      made = await create()
      source = made.source
      replica = made.replica
    })
    afterAll(() => made.release())

    const contentAt = async ({ type, postgres }: ReplicatedSite, id: string): Promise<string | undefined> =>
      (await type.read([id], postgres)).get(id)?.content
    const present = async (id: string): Promise<string> => {
      const content = await contentAt(source, id)
      if (content === undefined) throw new Error(`${id} is not there`)
      return content
    }
    /** What the sender and the receiver do for one object. */
    const copy = async (id: string): Promise<string> => {
      const content = await present(id)
      if (source.type.open && replica.type.receive && !(await replica.type.has?.([id]))?.has(id)) {
        const opened = await source.type.open(id)
        if (!opened) throw new Error(`${id} has no bytes`)
        await replica.type.receive(id, opened.size, opened.bytes)
      }
      const held = new Set((await replica.type.holdings?.([id], replica.postgres))?.get(id))
      const parts = (await source.type.parts?.(id, held, source.postgres)) ?? []
      await applying(replica.postgres, (client) => replica.type.apply({ id, content, parts }, client))
      return content
    }
    const one = (): Promise<string> => made.put(fc.sample(made.shapes, 1)[0] as Shape)
    /** Ids that were told since, of this type. */
    const told = async ({ postgres }: ReplicatedSite): Promise<string[]> => {
      const { rows } = await postgres.query<{ type: string; id: string }>(
        'DELETE FROM change_pending RETURNING type, id',
      )
      return [...new Set(rows.filter(({ type }) => type === source.type.type).map(({ id }) => id))]
    }

    it('gives, after a copy, the same text on the other side, and the same rows', async () => {
      await fc.assert(
        fc.asyncProperty(made.shapes, async (shape) => {
          const id = await made.put(shape)
          const content = await copy(id)
          expect(await contentAt(replica, id)).toBe(content)
          expect(await made.rows(id, replica.postgres)).toEqual(await made.rows(id, source.postgres))
        }),
        { numRuns: 40 },
      )
    })

    it('writes over what is there, and again is no harm', async () => {
      const id = await one()
      const before = await copy(id)
      await made.change(id)
      const after = await copy(id)
      expect(after).not.toBe(before)
      await copy(id)
      expect(await contentAt(replica, id)).toBe(after)
    })

    it('goes back to an earlier content', async () => {
      const id = await one()
      const content = await present(id)
      const parts = (await source.type.parts?.(id, new Set(), source.postgres)) ?? []
      await copy(id)
      await made.change(id)
      await copy(id)
      await applying(replica.postgres, (client) => replica.type.apply({ id, content, parts }, client))
      expect(await contentAt(replica, id)).toBe(content)
    })

    it('tells of each change of what is copied', async () => {
      await told(source)
      const id = await one()
      expect(await told(source)).toContain(id)
      const before = await present(id)
      await made.change(id)
      expect(await present(id)).not.toBe(before)
      expect(await told(source)).toEqual([id])
      await made.destroy(id)
      expect(await contentAt(source, id)).toBeUndefined()
      expect(await told(source)).toContain(id)
    })

    it('has nothing in it that is the business of one site, and tells of no such change', async () => {
      const id = await one()
      const before = await present(id)
      await told(source)
      await made.stir?.(id)
      expect(await present(id)).toBe(before)
      expect(await told(source)).toEqual([])
    })

    it('is written on a replica although it is closed, and tells of nothing there', async () => {
      await copy(await one())
      expect(await told(replica)).toEqual([])
    })

    it('writes nothing on a replica unless the transaction is applying', async () => {
      const id = await one()
      if (source.type.open) await copy(id)
      const content = await present(id)
      const parts = (await source.type.parts?.(id, new Set(), source.postgres)) ?? []
      const written = replica.postgres.transaction(async (client) => {
        await replica.type.remove(id, client)
        await replica.type.apply({ id, content, parts }, client)
      })
      await expect(written).rejects.toThrow(
        expect.objectContaining({ code: expect.stringMatching(/BT001|SITE_CLOSED/) }),
      )
    })

    it('removes an object, also twice, and one that never was; it can come back', async () => {
      const id = await one()
      await copy(id)
      for (const gone of [id, id, ...made.strangers]) {
        await applying(replica.postgres, (client) => replica.type.remove(gone, client))
      }
      expect(await contentAt(replica, id)).toBeUndefined()
      const content = await copy(id)
      expect(await contentAt(replica, id)).toBe(content)
    })

    it('reads many at once, and knows nothing of what is not there', async () => {
      const ids = [await one(), await one(), await one()]
      const images = await source.type.read([...ids, ...made.strangers], source.postgres)
      expect([...images.keys()].toSorted()).toEqual(ids.toSorted())
      for (const id of ids) expect(images.get(id)?.content).toBe(await present(id))
      expect(await source.type.read([], source.postgres)).toEqual(new Map())
    })

    it('names the same account on each side', async () => {
      const id = await one()
      await copy(id)
      const [here] = (await source.type.read([id], source.postgres)).values()
      const [there] = (await replica.type.read([id], replica.postgres)).values()
      expect(there?.account).toEqual(here?.account)
    })

    it('is scanned in the order of the ids, each once, and none that is gone', async () => {
      const gone = await one()
      await made.destroy(gone)
      const all: string[] = []
      for (let page = await source.type.scan(undefined, 7, source.postgres); page.length > 0; ) {
        expect(page.length).toBeLessThanOrEqual(7)
        all.push(...page)
        page = await source.type.scan(page.at(-1), 7, source.postgres)
      }
      const sorted = all.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
      expect(all).toEqual(sorted)
      expect(new Set(all).size).toBe(all.length)
      expect(all.length).toBeGreaterThan(10)
      expect(all).not.toContain(gone)
      expect([...(await source.type.read(all, source.postgres)).keys()].toSorted()).toEqual(all.toSorted())
    })

    it('refuses a content that it cannot write, and the rest of the transaction stands', async () => {
      const [good, bad] = [await one(), await one()]
      const content = await present(good)
      await copy(good)
      await applying(replica.postgres, async (client) => {
        await client.query('SAVEPOINT object')
        await expect(
          Promise.resolve().then(() => replica.type.apply({ id: bad, content: '{}', parts: [] }, client)),
        ).rejects.toBeInstanceOf(Error)
        await client.query('ROLLBACK TO SAVEPOINT object')
      })
      expect(await contentAt(replica, good)).toBe(content)
      expect(await contentAt(replica, bad)).toBeUndefined()
    })
  })
}
