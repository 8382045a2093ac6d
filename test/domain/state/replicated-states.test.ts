import { randomBytes, randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { sha256 } from '../../../src/core/digest.ts'
import { createReplicatedStates } from '../../../src/domain/state/replicated-states.ts'
import type { StateType } from '../../../src/domain/state/state-key.ts'
import type { StatesContent } from '../../../src/domain/state/states-content.ts'
import { createPostgresStore } from '../../../src/domain/state/stores/postgres.ts'
import type { Postgres } from '../../../src/platform/postgres/postgres.ts'
import type { Part } from '../../../src/platform/replication/replicated.ts'
import {
  applying,
  exerciseReplicatedType,
  oddInstant,
  oddText,
  rowsWithout,
  type TypeUnderTest,
  twoSites,
} from '../../contracts/replicated.ts'

const states = fc.record({
  uuid: fc.oneof(fc.constant(''), fc.uuid(), oddText(20)),
  type: fc.constantFrom('', 'devicedata', 'fd'),
  counter: fc.oneof(fc.integer({ min: 0, max: 99 }), fc.constant(2_147_483_648)),
  // Some the same under several keys.
  data: fc.oneof(fc.constantFrom('', 'a', '\0\xff'), fc.string({ unit: 'binary', maxLength: 2_000 })),
  updated_at: oddInstant,
})

const devices = fc
  .record({
    device: oddText(20).map((name) => `${name}${randomUUID()}`),
    states: fc.uniqueArray(states, {
      maxLength: 6,
      selector: (each) => `${each.uuid} ${each.type} ${each.counter}`,
    }),
    users: fc.uniqueArray(
      fc.uint8Array({ minLength: 1, maxLength: 90 }).map((bytes) => Buffer.from(bytes).toString('hex')),
      { maxLength: 4 },
    ),
  })
  .filter((each) => each.states.length + each.users.length > 0)
type Shape = typeof devices extends fc.Arbitrary<infer Any> ? Any : never

async function create(): Promise<TypeUnderTest<Shape>> {
  const { source, replica, drop } = await twoSites()
  let changes = 0
  return {
    source: { type: createReplicatedStates(), postgres: source },
    replica: { type: createReplicatedStates(), postgres: replica },
    shapes: devices,
    put: async (shape) => {
      await source.transaction(async (client) => {
        if (shape.states.length > 0)
          await client.query('INSERT INTO state_devices VALUES ($1)', [shape.device])
        for (const each of shape.states) {
          const data = Buffer.from(each.data)
          await client.query(`INSERT INTO states VALUES ($1, $2, $3, $4, $5, decode($6, 'hex'), 1, $7)`, [
            shape.device,
            each.uuid,
            each.type,
            each.counter,
            data,
            sha256(data),
            each.updated_at,
          ])
        }
        for (const user of shape.users) {
          await client.query(`INSERT INTO state_links (user_name, device) VALUES (decode($1, 'hex'), $2)`, [
            user,
            shape.device,
          ])
        }
      })
      return shape.device
    },
    change: async (device) => {
      const store = createPostgresStore({ database: source, place: 'test' })
      changes += 1
      if (changes % 2 === 0) await store.link(randomBytes(9), device)
      else await store.set(device, { type: 'hc', uuid: '', counter: 1 }, randomBytes(50))
    },
    destroy: async (device) => {
      await source.transaction(async (client) => {
        await client.query('UPDATE state_devices SET version = version + 1 WHERE device = $1', [device])
        await client.query('DELETE FROM states WHERE device = $1', [device])
        await client.query('DELETE FROM state_links WHERE device = $1', [device])
      })
    },
    rows: async (device, postgres) => [
      ...(await rowsWithout(
        ['version'],
        postgres,
        'SELECT * FROM states WHERE device = $1 ORDER BY uuid, type, counter',
        [device],
      )),
      ...(await rowsWithout(['id'], postgres, 'SELECT * FROM state_links WHERE device = $1 ORDER BY id', [
        device,
      ])),
    ],
    strangers: [randomUUID(), ''],
    release: drop,
  }
}

exerciseReplicatedType<Shape>('states', create)

const key = (counter: number, type: StateType = '') => ({ type, uuid: 'u', counter })

describe('states on a replica', () => {
  const withSites = async (
    work: (made: Awaited<ReturnType<typeof tools>>) => Promise<void>,
  ): Promise<void> => {
    const made = await tools()
    await work(made)
    await made.release()
  }
  const tools = async () => {
    const { source, replica, release } = await create()
    const storeOf = (postgres: Postgres) => createPostgresStore({ database: postgres, place: 'test' })
    const contentOf = async (): Promise<string> =>
      (await source.type.read(['phone'], source.postgres)).get('phone')?.content ?? ''
    const held = async (): Promise<Set<string>> =>
      new Set((await replica.type.holdings?.(['phone'], replica.postgres))?.get('phone'))
    const partsFor = async (known: Set<string>): Promise<Part[]> =>
      (await source.type.parts?.('phone', known, source.postgres)) ?? []
    const apply = (content: string, parts: Part[]): Promise<void> =>
      applying(replica.postgres, (client) => replica.type.apply({ id: 'phone', content, parts }, client))
    return {
      source,
      replica,
      release,
      contentOf,
      held,
      partsFor,
      apply,
      here: storeOf(source.postgres),
      there: storeOf(replica.postgres),
    }
  }

  it('get only the bytes that they lack, also when bytes change their places', () =>
    withSites(async ({ here, there, held, partsFor, contentOf, apply }) => {
      const [a, b, c] = [randomBytes(9), randomBytes(9), randomBytes(9)] as const
      await here.set('phone', key(1), a)
      await here.set('phone', key(2), b)
      await apply(await contentOf(), await partsFor(await held()))
      await here.set('phone', key(1), b)
      await here.set('phone', key(2), a)
      await here.set('phone', key(3), c)
      await here.set('phone', key(4), c)
      const parts = await partsFor(await held())
      expect(parts.map((part) => part.sha256)).toEqual([sha256(c)])
      await apply(await contentOf(), parts)
      for (const [counter, bytes] of [a, b, c, c].entries()) {
        const wanted = counter === 0 ? b : counter === 1 ? a : bytes
        expect((await there.get('phone', key(counter + 1)))?.bytes.equals(wanted)).toBe(true)
      }
      await here.clean('phone', key(3))
      await apply(await contentOf(), [])
      expect((await there.list('phone')).map((entry) => entry.key.counter)).toEqual([3, 4])
    }))

  it('are another to whoever compares fingerprints, after each copy and after their removal', () =>
    withSites(async ({ here, there, replica, partsFor, contentOf, apply }) => {
      const seen = new Set<string>()
      const look = async (): Promise<void> => {
        const { rows } = await replica.postgres.query<{ version: string }>(
          'SELECT version FROM state_devices',
        )
        seen.add(rows[0]?.version ?? '')
      }
      await here.set('phone', key(1), randomBytes(9))
      await apply(await contentOf(), await partsFor(new Set()))
      await look()
      await here.set('phone', key(1), randomBytes(9))
      await apply(await contentOf(), await partsFor(new Set()))
      await look()
      await applying(replica.postgres, (client) => replica.type.remove('phone', client))
      expect(await there.list('phone')).toEqual([])
      await look()
      expect(seen.size).toBe(3)
      expect(seen).not.toContain('')
    }))

  it('are refused without their bytes, and with others; nothing of the device changes then', () =>
    withSites(async ({ here, there, contentOf, partsFor, apply }) => {
      await here.set('phone', key(1), Buffer.from('old'))
      await apply(await contentOf(), await partsFor(new Set()))
      await here.clean('phone', key(1), { only: true })
      await here.set('phone', key(2), Buffer.from('new'))
      const content = await contentOf()
      await expect(apply(content, [])).rejects.toMatchObject({ code: 'STATE_PART_MISSING' })
      const forged = { sha256: sha256('new'), bytes: Buffer.from('not') }
      await expect(apply(content, [forged])).rejects.toMatchObject({ code: 'STATE_PART_DAMAGED' })
      const lying = JSON.parse(content) as StatesContent
      for (const state of lying.states) state.size += 1
      const parts = await partsFor(new Set())
      await expect(apply(JSON.stringify(lying), parts)).rejects.toMatchObject({ code: 'STATE_PART_DAMAGED' })
      expect((await there.get('phone', key(1)))?.bytes.toString()).toBe('old')
      await apply(content, parts)
      expect((await there.list('phone')).map((entry) => entry.key.counter)).toEqual([2])
    }))

  it('are not sent when the bytes at the source are not those of their sha256', () =>
    withSites(async ({ here, source, partsFor }) => {
      await here.set('phone', key(1), Buffer.from('right'))
      await source.postgres.query(`UPDATE states SET data = 'wrong'`)
      await expect(partsFor(new Set())).rejects.toMatchObject({ code: 'STATE_PART_DAMAGED' })
    }))

  it('keep the order of their users', () =>
    withSites(async ({ here, there, contentOf, apply }) => {
      const [a, b, c] = [Buffer.from('a\0\xff', 'latin1'), Buffer.from('b'), Buffer.from('c')] as const
      const users = async (): Promise<string[]> => {
        const all: string[] = []
        for await (const link of there.links()) all.push(link.user.toString('latin1'))
        return all
      }
      for (const user of [b, a]) await here.link(user, 'phone')
      await apply(await contentOf(), [])
      await here.link(c, 'phone')
      await apply(await contentOf(), [])
      expect(await users()).toEqual(['b', 'a\0\xff', 'c'])
      await here.unlink(b, 'phone')
      await here.link(b, 'phone')
      await apply(await contentOf(), [])
      expect(await users()).toEqual(['a\0\xff', 'c', 'b'])
    }))
})
