import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sha256 } from '../../src/core/digest.ts'
import { keyText, type StateKey } from '../../src/domain/state/state-key.ts'
import type { DeviceDigests, MovableStore, State } from '../../src/domain/state/store.ts'

export interface StoreUnderTest {
  store: MovableStore
  release(): Promise<void>
}

const uuidA = '11111111-2222-4333-8444-555555555555'
const uuidB = 'aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee'
const sync = (counter: number, uuid = uuidA): StateKey => ({ type: '', uuid, counter })
const devicedata: StateKey = { type: 'devicedata', uuid: '', counter: 0 }
const folder: StateKey = { type: 'fd', uuid: uuidA, counter: 0 }

/** NUL, Latin-1 and whatever else: a store that touches bytes fails on these. */
const nasty = Buffer.concat([Buffer.from('s:5:"a\0b\xe9\xff";', 'latin1'), randomBytes(300)])

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const each of source) all.push(each)
  return all
}

async function* from(states: State[]): AsyncIterable<State> {
  yield* states
}

const state = (key: StateKey, bytes: Buffer, updatedAtMicros = 1_700_000_000_123_456): State => ({
  key,
  bytes,
  updatedAtMicros,
})

/** IStateMachine's meaning and what a migration needs, of every store. */
export function exerciseStateStore(name: string, create: () => Promise<StoreUnderTest>): void {
  describe(`the ${name} store`, () => {
    let store: MovableStore
    let release: () => Promise<void>
    let count = 0
    const device = (): string => `dev${++count}x${randomBytes(3).toString('hex')}`

    const replace = (id: string, fill: () => AsyncIterable<State>, keep = new Set<string>()): Promise<void> =>
      store.replace([{ device: id, fill, keep }])
    const digestsOf = async (id: string): Promise<DeviceDigests> =>
      (await store.digests([id], true)).get(id) ?? { fingerprint: 'none', digests: [] }

    beforeAll(async () => {
      const made = await create()
      store = made.store
      release = made.release
      await store.prepare('2')
    })
    afterAll(() => release())

    it('gives back the bytes that it was given', async () => {
      const id = device()
      const large = randomBytes(3_400_000)
      for (const [key, bytes] of [
        [sync(7), nasty],
        [devicedata, Buffer.from('x')],
        [sync(8), large],
      ] as const) {
        await store.set(id, key, bytes)
        expect((await store.get(id, key))?.bytes.equals(bytes)).toBe(true)
      }
    })

    it('replaces a state of the same key, and tells it by another hash', async () => {
      const id = device()
      await store.set(id, sync(1), Buffer.from('one'))
      const before = await store.hash(id, sync(1))
      await store.set(id, sync(1), Buffer.from('two'))
      expect((await store.get(id, sync(1)))?.bytes.toString()).toBe('two')
      expect(await store.hash(id, sync(1))).not.toBe(before)
      expect(await store.list(id)).toHaveLength(1)
    })

    it('answers undefined for what is not there, fail-save states included', async () => {
      const id = device()
      await store.set(id, sync(1), nasty)
      expect(await store.get(id, sync(2))).toBeUndefined()
      expect(await store.get(id, { type: 'fs', uuid: uuidA, counter: 1 })).toBeUndefined()
      expect(await store.get(device(), devicedata)).toBeUndefined()
      expect(await store.hash(id, sync(2))).toBeUndefined()
    })

    it('keeps states apart that differ in type, uuid or counter alone', async () => {
      const id = device()
      const keys = [
        sync(5),
        sync(6),
        sync(5, uuidB),
        devicedata,
        folder,
        { type: 'hc', uuid: uuidA, counter: 5 },
        { type: 'fs', uuid: uuidA, counter: 5 },
        { type: 'bs', uuid: uuidA, counter: 5 },
        { type: 'bs', uuid: '', counter: 1_722_092_205 },
        { type: 'hc', uuid: uuidA, counter: 99_999 },
      ] satisfies StateKey[]
      for (const key of keys) await store.set(id, key, Buffer.from(keyText(key)))
      for (const key of keys) expect((await store.get(id, key))?.bytes.toString()).toBe(keyText(key))
      expect((await store.list(id)).map((entry) => keyText(entry.key)).toSorted()).toEqual(
        keys.map(keyText).toSorted(),
      )
    })

    it('removes older counters only when a read asks for it, and never those of a neighbour', async () => {
      const id = device()
      for (const counter of [1, 2, 3]) await store.set(id, sync(counter), nasty)
      await store.set(id, sync(1, uuidB), nasty)
      await store.get(id, sync(3))
      expect(await store.list(id)).toHaveLength(4)
      await store.get(id, sync(3), { clean: true })
      expect((await store.list(id)).map((entry) => keyText(entry.key)).toSorted()).toEqual(
        [sync(1, uuidB), sync(3)].map(keyText).toSorted(),
      )
    })

    it('destroys nothing when a clean read asks for a counter that is not there', async () => {
      const id = device()
      for (const counter of [1, 2]) await store.set(id, sync(counter), nasty)
      expect(await store.get(id, sync(9), { clean: true })).toBeUndefined()
      expect(await store.list(id)).toHaveLength(2)
    })

    it('cleans below a counter, that counter only, or all of a key', async () => {
      const id = device()
      for (const counter of [1, 2, 3, 4]) await store.set(id, sync(counter), nasty)
      expect(await store.clean(id, sync(3))).toBe(2)
      expect(await store.clean(id, sync(4), { only: true })).toBe(1)
      expect((await store.list(id)).map((entry) => entry.key.counter)).toEqual([3])
      await store.set(id, folder, nasty)
      expect(await store.clean(id, sync(0))).toBe(1)
      expect((await store.list(id)).map((entry) => entry.key.type)).toEqual(['fd'])
      expect(await store.clean(id, sync(0))).toBe(0)
    })

    it('writes under a condition only when it holds', async () => {
      const id = device()
      await expect(store.set(id, sync(1), nasty, { ifMatch: '*' })).rejects.toMatchObject({
        code: 'STATE_CHANGED',
      })
      await store.set(id, sync(1), Buffer.from('one'))
      await expect(store.set(id, sync(1), nasty, { ifMatch: sha256('other') })).rejects.toMatchObject({
        code: 'STATE_CHANGED',
      })
      await store.set(id, sync(1), Buffer.from('two'), { ifMatch: sha256('one') })
      await expect(store.clean(id, sync(1), { only: true, ifMatch: sha256('one') })).rejects.toMatchObject({
        code: 'STATE_CHANGED',
      })
      expect((await store.get(id, sync(1)))?.bytes.toString()).toBe('two')
    })

    it('links users of any script to devices, numeric ids included, and keeps the order', async () => {
      const users = ['müller', '10042', "o'brien@example.org", 'zoë🚀@example.com', '李雷'].map((user) =>
        Buffer.from(user),
      )
      const devices = ['5756862739', device()]
      for (const user of users) {
        for (const id of devices) expect(await store.link(user, id)).toBe(true)
      }
      expect(await store.link(users[1] as Buffer, '5756862739')).toBe(false)
      const links = (await collect(store.links())).map((link) => `${link.user.toString()} ${link.device}`)
      expect(links).toEqual(users.flatMap((user) => devices.map((id) => `${user.toString()} ${id}`)))
      expect(await collect(store.devices(Buffer.from('10042')))).toEqual(devices)
      expect(await store.unlink(Buffer.from('10042'), '5756862739')).toBe(true)
      expect(await store.unlink(Buffer.from('10042'), '5756862739')).toBe(false)
      expect(await collect(store.devices(Buffer.from('10042')))).toEqual([devices[1]])
      await store.applyLinks({ add: [], remove: await collect(store.links()) })
      expect(await collect(store.links())).toEqual([])
    })

    it('lists devices as texts, also when they look like numbers', async () => {
      await store.set('5756862739', devicedata, nasty)
      const devices = await collect(store.devices())
      expect(devices).toContain('5756862739')
      expect(new Set(devices).size).toBe(devices.length)
    })

    it('knows its version as a text', async () => {
      expect(await store.version()).toBe('2')
      await store.setVersion('baton:test')
      expect(await store.version()).toBe('baton:test')
      await store.setVersion('2')
    })

    it('replaces a device as a whole, with the times of its states, and reads digests back', async () => {
      const id = device()
      await store.set(id, sync(1), nasty)
      await store.set(id, sync(2), nasty)
      const states = [
        state(sync(2), Buffer.from('new')),
        state(devicedata, nasty, 1_000_000),
        state(folder, Buffer.alloc(0)),
      ]
      await replace(id, () => from(states))
      const entries = await store.list(id)
      expect(entries.map((entry) => keyText(entry.key)).toSorted()).toEqual(
        states.map((each) => keyText(each.key)).toSorted(),
      )
      for (const each of states) {
        const entry = entries.find((candidate) => keyText(candidate.key) === keyText(each.key))
        expect(entry?.size).toBe(each.bytes.length)
        expect(entry?.updatedAtMicros).toBe(each.updatedAtMicros)
      }
      const { digests } = await digestsOf(id)
      expect(
        digests.map((digest) => `${keyText(digest.key)} ${digest.size} ${digest.sha256}`).toSorted(),
      ).toEqual(
        states.map((each) => `${keyText(each.key)} ${each.bytes.length} ${sha256(each.bytes)}`).toSorted(),
      )
    })

    it('replaces several devices together, and reads several back', async () => {
      const ids = [device(), device(), device()]
      for (const id of ids) await store.set(id, sync(1), nasty)
      const works = ids.map((id, index) => ({
        device: id,
        fill: () => from(index === 1 ? [] : [state(sync(index + 2), Buffer.from(id))]),
        keep: new Set(index === 1 ? [keyText(sync(1))] : []),
      }))
      await store.replace(works)
      const all = await store.digests([...ids, 'nobody'], true)
      expect([...all].map(([id, { digests }]) => [id, digests.map(({ key }) => key.counter)])).toEqual([
        [ids[0], [2]],
        [ids[1], [1]],
        [ids[2], [4]],
        ['nobody', []],
      ])
    })

    it('leaves what is to be kept when it replaces', async () => {
      const id = device()
      await store.set(id, sync(1), Buffer.from('kept'))
      await store.set(id, sync(2), Buffer.from('gone'))
      await replace(id, () => from([state(sync(3), nasty)]), new Set([keyText(sync(1))]))
      expect(new Set((await store.list(id)).map((entry) => entry.key.counter))).toEqual(new Set([1, 3]))
    })

    it('keeps a device as it was when the states to replace it cannot be read to the end', async () => {
      if (store.kind === 'file') return
      const id = device()
      await store.set(id, sync(1), nasty)
      async function* failing(): AsyncIterable<State> {
        yield state(sync(2), nasty)
        throw new Error('the source went away')
      }
      await expect(replace(id, failing)).rejects.toThrow('the source went away')
      expect((await store.list(id)).map((entry) => entry.key.counter)).toEqual([1])
      await store.set(id, sync(3), nasty)
      expect(await store.list(id)).toHaveLength(2)
    })

    it('surveys each device once, with a fingerprint that changes with any of its states', async () => {
      const [quiet, busy] = [device(), device()]
      for (const id of [quiet, busy]) await store.set(id, sync(1), nasty)
      const look = async (): Promise<Map<string, string>> => {
        const seen = new Map<string, string>()
        for await (const survey of store.survey(new Map())) {
          for (const each of survey.devices) {
            expect(seen.has(each.device)).toBe(false)
            seen.set(each.device, each.fingerprint)
          }
        }
        return seen
      }
      const first = await look()
      expect(first.get(quiet)).toBe((await store.snapshot(quiet, true)).fingerprint)
      expect(first.get(quiet)).toBe((await digestsOf(quiet)).fingerprint)
      await store.set(busy, sync(1), Buffer.from('other'))
      const second = await look()
      expect(second.get(quiet)).toBe(first.get(quiet))
      expect(second.get(busy)).not.toBe(first.get(busy))
      await store.clean(busy, sync(0))
      const third = await look()
      expect(third.has(busy)).toBe(false)
      expect((await store.snapshot(busy, true)).fingerprint).toBe('')
    })

    it('streams a snapshot of many states and of large ones', async () => {
      const id = device()
      const states = [
        ...Array.from({ length: 700 }, (_each, index) =>
          state(sync(index + 1), Buffer.from(`state ${index}`)),
        ),
        state(sync(5_000), randomBytes(5_000_000)),
      ]
      await replace(id, () => from(states))
      const snapshot = await store.snapshot(id, true)
      expect(snapshot.entries).toHaveLength(701)
      const digests = new Map((await digestsOf(id)).digests.map((each) => [keyText(each.key), each.sha256]))
      for await (const each of snapshot.states())
        expect(digests.get(keyText(each.key))).toBe(sha256(each.bytes))
    })
  })
}
