import { randomBytes } from 'node:crypto'
import { describe, expect, it, onTestFinished } from 'vitest'
import { sha256 } from '../../src/core/digest.ts'
import type { BodySource, BodyStore, Slice } from '../../src/domain/bodies/body-store.ts'

/** A store under test, and a way to its bytes that does not go through it. */
export interface BodyStorePlace {
  store: BodyStore
  /** A second store object on the same place, as another process would have it. */
  again(): Promise<BodyStore>
  /** Puts bytes under an id as a rotting disk would. */
  plant(id: string, bytes: Uint8Array): Promise<void>
  /** Makes the place disappear: an unmounted disk, a host that refuses connections. */
  takeAway(): Promise<void>
  /** An empty place of the same name instead: a disk that is not mounted. @returns what brings the first one back */
  swap(): Promise<() => Promise<void>>
  release(): Promise<void>
}

export const sourceOf = (bytes: Uint8Array, pieceBytes = 65_536): BodySource => ({
  size: bytes.length,
  open: async function* () {
    for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes)
  },
})

export async function readAll(store: BodyStore, id: string, slice?: Slice): Promise<Buffer> {
  const { stream } = await store.open(id, slice)
  return Buffer.concat((await stream.toArray()) as Buffer[])
}

const notIds = [
  '',
  'abc',
  '../../etc/passwd',
  `../${'a'.repeat(61)}`,
  'A'.repeat(64),
  `${'a'.repeat(64)}\n`,
  'g'.repeat(64),
  'a'.repeat(65),
]

/** What every implementation of BodyStore has to prove. */
export function exerciseBodyStore(name: string, create: () => Promise<BodyStorePlace>): void {
  const place = async (): Promise<BodyStorePlace> => {
    const created = await create()
    onTestFinished(() => created.release())
    return created
  }
  const write = async (store: BodyStore, bytes: Uint8Array): Promise<string> => {
    const id = sha256(bytes)
    await store.put(id, sourceOf(bytes))
    return id
  }

  describe(`${name} as a store of bodies`, () => {
    it.each([0, 1, 65_536, 3_000_000])('gives back a body of %i bytes as it was put', async (size) => {
      const { store } = await place()
      const bytes = randomBytes(size)
      const id = await write(store, bytes)
      expect(await readAll(store, id)).toEqual(bytes)
      expect(await store.stat(id)).toMatchObject({ id, size })
      expect(await store.open(id).then(({ size: told, stream }) => (stream.destroy(), told))).toBe(size)
    })

    it('streams slices, and narrows those that reach beyond the end', async () => {
      const { store } = await place()
      const bytes = randomBytes(100_000)
      const id = await write(store, bytes)
      expect(await readAll(store, id, { start: 10, end: 20 })).toEqual(bytes.subarray(10, 20))
      expect(await readAll(store, id, { start: 99_999 })).toEqual(bytes.subarray(99_999))
      expect(await readAll(store, id, { end: 1 })).toEqual(bytes.subarray(0, 1))
      expect(await readAll(store, id, { start: 50_000, end: 1_000_000 })).toEqual(bytes.subarray(50_000))
      expect(await readAll(store, id, { start: 7, end: 7 })).toEqual(Buffer.alloc(0))
    })

    it('gives whole small bodies at once where it can, and shows when one has another length', async () => {
      const { store, plant } = await place()
      if (!store.take) return
      for (const size of [0, 1, 70_000]) {
        const bytes = randomBytes(size)
        const id = await write(store, bytes)
        expect(Buffer.from(await store.take(id, size))).toEqual(bytes)
        await plant(id, Buffer.concat([bytes, Buffer.from('more')]))
        expect((await store.take(id, size)).length).toBeGreaterThan(size)
        await plant(id, bytes.subarray(1))
        expect((await store.take(id, size)).length).toBe(Math.max(0, size - 1))
      }
      await expect(store.take(sha256('nothing'), 7)).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
    })

    it('says that it has not what it has not, and removes it without complaint', async () => {
      const { store } = await place()
      const id = sha256('nothing')
      await expect(store.open(id)).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
      await expect(store.stat(id)).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
      expect(await store.remove(id)).toBe(false)
      expect(await store.quarantine(id)).toBe(false)
    })

    it('removes', async () => {
      const { store } = await place()
      const id = await write(store, Buffer.from('gone'))
      expect(await store.remove(id)).toBe(true)
      await expect(store.open(id)).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
    })

    it.each(notIds)('takes %j for no id', async (id) => {
      const { store } = await place()
      const refused = { code: 'BODY_ID_INVALID' }
      await expect(store.put(id, sourceOf(Buffer.from('x')))).rejects.toMatchObject(refused)
      await expect(store.open(id)).rejects.toMatchObject(refused)
      await expect(store.take ? store.take(id, 1) : store.open(id)).rejects.toMatchObject(refused)
      await expect(store.stat(id)).rejects.toMatchObject(refused)
      await expect(store.remove(id)).rejects.toMatchObject(refused)
      await expect(store.quarantine(id)).rejects.toMatchObject(refused)
    })

    it('writes over bad bytes, so that a put heals', async () => {
      const place_ = await place()
      const bytes = randomBytes(1_000)
      const id = await write(place_.store, bytes)
      await place_.plant(id, randomBytes(1_000))
      await write(place_.store, bytes)
      expect(await readAll(place_.store, id)).toEqual(bytes)
    })

    it('lists all bodies once, in order, page by page, from any id', async () => {
      const { store } = await place()
      const ids = await Promise.all(
        Array.from({ length: 25 }, (_each, index) => write(store, Buffer.from(`body ${index}`))),
      )
      ids.sort()
      const seen: string[] = []
      for (let after: string | undefined; ; ) {
        const page = await store.list(after, 4)
        if (page.length === 0) break
        seen.push(...page.map(({ id }) => id))
        after = seen.at(-1)
      }
      expect(seen).toEqual(ids)
      const middle = ids[12] as string
      expect((await store.list(middle, 100)).map(({ id }) => id)).toEqual(ids.slice(13))
      expect((await store.list(undefined, 1))[0]).toMatchObject({ id: ids[0], size: expect.any(Number) })
      expect(Math.abs(((await store.list(undefined, 1))[0]?.modifiedAt ?? 0) - Date.now())).toBeLessThan(
        60_000,
      )
    })

    it('takes a bad copy into quarantine, and leaves a sound one where it is', async () => {
      const place_ = await place()
      const bytes = randomBytes(5_000)
      const id = await write(place_.store, bytes)
      expect(await place_.store.quarantine(id)).toBe(false)
      expect(await readAll(place_.store, id)).toEqual(bytes)
      await place_.plant(id, bytes.subarray(1))
      expect(await place_.store.quarantine(id)).toBe(true)
      await expect(place_.store.open(id)).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
      expect(await place_.store.list(undefined, 10)).toEqual([])
    })

    it('keeps nothing of a put whose source fails, or that is aborted', async () => {
      const { store } = await place()
      const id = sha256('half')
      const failing = async function* () {
        yield Buffer.from('ha')
        throw new Error('the source broke')
      }
      await expect(store.put(id, { size: 4, open: failing })).rejects.toThrow(/source broke/)
      await expect(store.stat(id)).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
      const aborting = new AbortController()
      const slow = async function* () {
        yield Buffer.from('ha')
        aborting.abort(new Error('enough'))
        yield Buffer.from('lf')
      }
      await expect(store.put(id, { size: 4, open: slow }, aborting.signal)).rejects.toThrow(/enough/)
      await expect(store.stat(id)).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
    })

    it('is the same place for everybody who opens it', async () => {
      const { store, again } = await place()
      const [first, other] = await Promise.all([store.identity(), again().then((each) => each.identity())])
      expect(first).toBe(other)
      expect(first).toMatch(/^\S{8,}$/)
    })

    it('writes nothing to another place that has taken its own, which it knows when that is back', async () => {
      const { store, again, swap } = await place()
      const id = await write(store, Buffer.from('mine'))
      const own = await store.identity()
      const bringBack = await swap()
      const another = await (await again()).identity()
      expect(another).not.toBe(own)
      expect(await store.identity()).toBe(another)
      const refused = { code: 'BODY_UNAVAILABLE', message: expect.stringMatching(/the place|mounted/) }
      await expect(write(store, Buffer.from('new'))).rejects.toMatchObject(refused)
      await expect(store.open(id)).rejects.toMatchObject(refused)
      await bringBack()
      expect(await store.identity()).toBe(own)
      expect((await readAll(store, id)).toString()).toBe('mine')
    })

    it('is unavailable, and does not swear that it has nothing, once its place is gone', async () => {
      const place_ = await place()
      const id = await write(place_.store, Buffer.from('still there'))
      await place_.takeAway()
      const away = { code: expect.stringMatching(/^BODY_(UNAVAILABLE|TIMEOUT)$/) }
      await expect(place_.store.open(id)).rejects.toMatchObject(away)
      await expect(place_.store.stat(id)).rejects.toMatchObject(away)
      await expect(place_.store.remove(id)).rejects.toMatchObject(away)
      await expect(place_.store.put(id, sourceOf(Buffer.from('still there')))).rejects.toMatchObject(away)
      await expect(place_.store.list(undefined, 10)).rejects.toMatchObject(away)
    })

    it('hides a staged body until it is committed, and forgets a discarded one', async () => {
      const { store } = await place()
      if (!store.stage) return
      const bytes = randomBytes(300_000)
      const id = sha256(bytes)
      const staged = await store.stage()
      await staged.write(bytes.subarray(0, 100_000))
      await staged.write(bytes.subarray(100_000))
      await staged.seal()
      await expect(store.open(id)).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
      expect(await store.list(undefined, 10)).toEqual([])
      await staged.commit(id)
      expect(await readAll(store, id)).toEqual(bytes)
      const other = await store.stage()
      await other.write(Buffer.from('x'))
      await other.discard()
      expect(await store.sweepStaged(-60_000)).toBe(0)
    })

    it('holds many writers and readers of one body at once', async () => {
      const { store } = await place()
      const bytes = randomBytes(200_000)
      const id = await write(store, bytes)
      const work = Array.from({ length: 20 }, async (_each, index) => {
        if (index % 2 === 0) await write(store, bytes)
        return readAll(store, id)
      })
      for (const read of await Promise.all(work)) expect(read.equals(bytes)).toBe(true)
      expect(await store.list(undefined, 10)).toHaveLength(1)
    })
  })
}
