import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import fc from 'fast-check'
import { pino } from 'pino'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { sha256 } from '../../../src/core/digest.ts'
import { type Bodies, type BodiesOptions, createBodies } from '../../../src/domain/bodies/bodies.ts'
import type { BodyStore } from '../../../src/domain/bodies/body-store.ts'
import { BODY_UNAVAILABLE } from '../../../src/domain/bodies/errors.ts'
import { createDirectoryStore } from '../../../src/domain/bodies/stores/directory.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { testDatabase } from '../../support/databases.ts'

const clock = createSystemClock()
const log = pino({ level: 'silent' })
const mib = 1_048_576

let postgres: Postgres
let roots: { a: string; b: string; folder: string }

beforeAll(async () => {
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 5, applicationName: 'bodies test', onError: () => undefined })
})
afterAll(() => postgres.close())

// Node warns when the garbage collector has to close a file that somebody forgot.
const warnings: Error[] = []
beforeAll(() => void process.on('warning', (warning) => warnings.push(warning)))
afterAll(() => {
  if (warnings.length > 0) throw new AggregateError(warnings, 'Node had to warn')
})

beforeEach(async () => {
  await postgres.query('TRUNCATE bodies, body_repairs, body_stores')
  const folder = await mkdtemp(join(tmpdir(), 'baton-bodies-'))
  roots = { folder, a: join(folder, 'a'), b: join(folder, 'b') }
  return () => rm(folder, { recursive: true, force: true })
})

const storeIn = (root: string, name: string): BodyStore => createDirectoryStore({ root, clock, name })
const twoStores = (): [BodyStore, BodyStore] => [storeIn(roots.a, 'a'), storeIn(roots.b, 'b')]

function open(options: Partial<BodiesOptions> = {}): Bodies {
  const bodies = createBodies({
    stores: twoStores(),
    postgres,
    clock,
    log,
    spoolFolder: roots.folder,
    ...options,
  })
  onTestFinished(() => bodies.close())
  return bodies
}

const streamOf = (bytes: Uint8Array, pieceBytes = 100_000): Readable =>
  Readable.from(
    (function* () {
      for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes)
    })(),
  )
const contentOf = async (
  bodies: Bodies,
  id: string,
  range?: { start: number; end?: number },
): Promise<Buffer> => {
  const { stream } = await bodies.get(id, range && { range })
  return Buffer.concat((await stream.toArray()) as Buffer[])
}
const fileOf = (root: string, id: string): string => join(root, 'bodies', id.slice(0, 2), id)
const flipBit = async (path: string, at: number): Promise<void> => {
  const bytes = await readFile(path)
  bytes[at] = (bytes[at] ?? 0) ^ 1
  await writeFile(path, bytes)
}
const wishes = async (): Promise<{ body: string; reason: string }[]> =>
  (await postgres.query<{ body: string; reason: string }>('SELECT body, reason FROM body_repairs')).rows
const leftovers = async (): Promise<string[]> => [
  ...(await readdir(join(roots.a, 'incoming'))),
  ...(await readdir(join(roots.b, 'incoming'))),
  ...(await readdir(roots.folder)).filter((name) => name.startsWith('baton-spool')),
]
const bodyFiles = async (root: string): Promise<string[]> =>
  (await readdir(join(root, 'bodies'), { recursive: true })).filter((name) => name.length > 64)

/** A store of which some methods behave otherwise. With `open` it reads in no other way. */
function altered({ take, ...store }: BodyStore, change: Partial<BodyStore>): BodyStore {
  return { ...store, ...(take && !change.open && { take }), ...change }
}

describe('a put', () => {
  it.each([0, 1, mib - 1, mib, mib + 1, 5 * mib + 17])(
    'of %i bytes is answered with two copies',
    async (size) => {
      const bodies = open()
      const bytes = randomBytes(size)
      expect(await bodies.put(streamOf(bytes))).toEqual({ id: sha256(bytes), size, copies: 2 })
      const id = sha256(bytes)
      expect(await readFile(fileOf(roots.a, id))).toEqual(bytes)
      expect(await readFile(fileOf(roots.b, id))).toEqual(bytes)
      expect(await contentOf(bodies, id)).toEqual(bytes)
      expect(await bodies.stat(id)).toMatchObject({ id, size, copies: 2 })
      expect(await leftovers()).toEqual([])
    },
  )

  it('of the same bytes again is the same body, and heals a bad copy of it', async () => {
    const bodies = open()
    const bytes = randomBytes(10_000)
    const { id } = await bodies.put(streamOf(bytes))
    await flipBit(fileOf(roots.b, id), 77)
    expect(await bodies.put(streamOf(bytes))).toEqual({ id, size: 10_000, copies: 2 })
    expect(await readFile(fileOf(roots.b, id))).toEqual(bytes)
  })

  it('takes as much as is allowed, and not one byte more', async () => {
    const bodies = open({ maxBytes: 2 * mib })
    const { id } = await bodies.put(streamOf(randomBytes(2 * mib)))
    await expect(bodies.put(streamOf(randomBytes(2 * mib + 1)))).rejects.toMatchObject({
      code: 'BODY_TOO_LARGE',
      traits: { status: 413 },
    })
    expect(await bodyFiles(roots.a)).toEqual([`${id.slice(0, 2)}/${id}`])
    expect(await leftovers()).toEqual([])
  })

  it.each([1_000, 3 * mib])('whose sender goes away after %i bytes leaves nothing', async (size) => {
    const bodies = open()
    await bodies.put(streamOf(Buffer.from('makes the folders')))
    const sender = new PassThrough()
    const put = bodies.put(sender)
    sender.write(randomBytes(size))
    setImmediate(() => sender.destroy())
    await expect(put).rejects.toMatchObject({ code: 'BODY_INCOMPLETE', traits: { status: 400 } })
    expect(await bodyFiles(roots.a)).toHaveLength(1)
    expect(await leftovers()).toEqual([])
  })

  it('that is aborted while its sender is silent ends at once, and leaves nothing', async () => {
    const bodies = open()
    const sender = new PassThrough()
    sender.write(randomBytes(2 * mib))
    const reason = new Error('the request timed out')
    await expect(bodies.put(sender, { signal: AbortSignal.any([abortSoon(reason)]) })).rejects.toBe(reason)
    expect(await leftovers()).toEqual([])
  })

  it('with one store away is refused, unless the caller is content with one copy', async () => {
    const [a, b] = twoStores()
    const away = (): Promise<never> => Promise.reject(BODY_UNAVAILABLE({ store: 'b', reason: 'away' }))
    for (const size of [10, 3 * mib]) {
      const bodies = open({ stores: [a, altered(b, { stage: away, put: away })] })
      const bytes = randomBytes(size)
      await expect(bodies.put(streamOf(bytes))).rejects.toMatchObject({ code: 'BODY_UNAVAILABLE' })
      await expect(bodies.get(sha256(bytes))).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
      const { id, copies } = await bodies.put(streamOf(bytes), { minCopies: 1 })
      expect(copies).toBe(1)
      expect(await contentOf(bodies, id)).toEqual(bytes)
      expect(await wishes()).toContainEqual({ body: id, reason: 'a copy is missing' })
      const healed = await open({ stores: [a, b] }).repair(id)
      expect(healed).toMatchObject({ sound: ['a', 'b'], written: ['b'], lost: false })
      expect(await readFile(fileOf(roots.b, id))).toEqual(bytes)
      expect(await wishes()).toEqual([])
    }
  })

  it('whose store fails in the middle keeps the other one, where one copy is enough', async () => {
    const [a, b] = twoStores()
    let writes = 0
    const failing = altered(b, {
      stage: async () => {
        const staged = await (b.stage as NonNullable<BodyStore['stage']>)()
        const write = (chunk: Uint8Array): Promise<void> =>
          ++writes > 3
            ? Promise.reject(BODY_UNAVAILABLE({ store: 'b', reason: 'full' }))
            : staged.write(chunk)
        return { ...staged, write }
      },
    })
    const bodies = open({ stores: [a, failing] })
    const bytes = randomBytes(4 * mib)
    expect(await bodies.put(streamOf(bytes), { minCopies: 1 })).toMatchObject({ copies: 1 })
    expect(await leftovers()).toEqual([])
    writes = 0
    await expect(bodies.put(streamOf(randomBytes(4 * mib)))).rejects.toMatchObject({
      code: 'BODY_UNAVAILABLE',
    })
    expect(await leftovers()).toEqual([])
    expect(await bodyFiles(roots.a)).toHaveLength(1)
  })

  it('to a store that hangs ends by its deadline', async () => {
    const [a, b] = twoStores()
    const hanging = altered(b, { stage: () => new Promise<never>(() => undefined) })
    const bodies = open({ stores: [a, hanging], timeoutMs: 100 })
    await expect(bodies.put(streamOf(randomBytes(10)))).rejects.toMatchObject({ code: 'BODY_TIMEOUT' })
    expect(await leftovers()).toEqual([])
  })

  it('goes at the pace of the slower store, with little in memory', async () => {
    const [a, b] = twoStores()
    let written = 0
    let sent = 0
    let ahead = 0
    const slow = altered(b, {
      stage: async () => {
        const staged = await (b.stage as NonNullable<BodyStore['stage']>)()
        const write = async (chunk: Uint8Array): Promise<void> => {
          await clock.sleep(2)
          await staged.write(chunk)
          written += chunk.length
        }
        return { ...staged, write }
      },
    })
    const source = async function* () {
      const chunk = randomBytes(64 * 1024)
      for (let index = 0; index < 256; index++) {
        sent += chunk.length
        ahead = Math.max(ahead, sent - written)
        yield chunk
      }
    }
    await open({ stores: [a, slow] }).put(source())
    expect(ahead).toBeLessThan(4 * mib)
  })

  it('is refused once too many are under way and wait', async () => {
    const bodies = open({ maxTransfers: 1, maxWaiting: 20 })
    const sender = new PassThrough()
    const first = bodies.put(sender)
    const waiting = Array.from({ length: 20 }, () => bodies.put(streamOf(Buffer.from('waits'))))
    await expect(bodies.put(streamOf(Buffer.from('late')))).rejects.toMatchObject({
      code: 'BODY_OVERLOADED',
      retryAfterMs: 1_000,
    })
    sender.end('first')
    expect((await first).copies).toBe(2)
    for (const { copies } of await Promise.all(waiting)) expect(copies).toBe(2)
  })

  it('leaves nothing visible when the database is away', async () => {
    const broken = {
      ...postgres,
      query: () => Promise.reject(new Error('no database')),
    } as unknown as Postgres
    await open().put(streamOf(Buffer.from('recognizes the stores')))
    const bodies = open({ postgres: broken })
    await expect(bodies.put(streamOf(randomBytes(10)))).rejects.toThrow('no database')
    expect(await bodyFiles(roots.a)).toHaveLength(1)
    expect(await leftovers()).toEqual([])
  })
})

const abortSoon = (reason: Error): AbortSignal => {
  const controller = new AbortController()
  setTimeout(() => controller.abort(reason), 50)
  return controller.signal
}

describe('a get', () => {
  it('answers any range with exactly its bytes', async () => {
    const bodies = open()
    const bytes = randomBytes(3 * mib + 1_234)
    const { id } = await bodies.put(streamOf(bytes))
    const edge = fc.oneof(
      fc.integer({ min: 0, max: bytes.length - 1 }),
      fc.constantFrom(0, 1, mib - 1, mib, mib + 1, 2 * mib, 3 * mib, bytes.length - 1),
    )
    await fc.assert(
      fc.asyncProperty(edge, edge, fc.boolean(), async (one, other, suffix) => {
        const [start, end] = [Math.min(one, other), Math.max(one, other) + 1]
        const range = suffix ? { suffix: bytes.length - start } : { start, end }
        const content = await bodies.get(id, { range })
        const expected = bytes.subarray(start, suffix ? undefined : end)
        expect([content.start, content.end]).toEqual([start, start + expected.length])
        const got = Buffer.concat((await content.stream.toArray()) as Buffer[])
        expect(got.equals(expected)).toBe(true)
      }),
      { numRuns: 200 },
    )
  })

  it('refuses a range outside of the body, and shortens one that begins within', async () => {
    const bodies = open()
    const { id } = await bodies.put(streamOf(Buffer.from('0123456789')))
    for (const range of [{ start: 10 }, { start: 5, end: 5 }, { start: -1 }, { start: 0.5 }, { suffix: 0 }]) {
      await expect(bodies.get(id, { range })).rejects.toMatchObject({
        code: 'BODY_RANGE_INVALID',
        traits: { status: 416 },
      })
    }
    expect((await contentOf(bodies, id, { start: 8, end: 100 })).toString()).toBe('89')
    const empty = await bodies.put(streamOf(Buffer.alloc(0)))
    await expect(bodies.get(empty.id, { range: { suffix: 1 } })).rejects.toMatchObject({
      code: 'BODY_RANGE_INVALID',
    })
  })

  it.each(['', '../../etc/passwd', 'A'.repeat(64), `${'a'.repeat(64)}/..`])(
    'takes %j for no id',
    async (id) => {
      const bodies = open()
      await expect(bodies.get(id)).rejects.toMatchObject({ code: 'BODY_ID_INVALID', traits: { status: 400 } })
      await expect(bodies.stat(id)).rejects.toMatchObject({ code: 'BODY_ID_INVALID' })
      await expect(bodies.read(id)[Symbol.asyncIterator]().next()).rejects.toMatchObject({
        code: 'BODY_ID_INVALID',
      })
    },
  )

  it.each([100, 2 * mib + 5])(
    'of %i bytes with a flipped bit in one copy is right, and heals it',
    async (size) => {
      const bodies = open()
      const bytes = randomBytes(size)
      const { id } = await bodies.put(streamOf(bytes))
      await flipBit(fileOf(roots.a, id), size - 1)
      expect((await contentOf(bodies, id)).equals(bytes)).toBe(true)
      await bodies.idle()
      expect((await readFile(fileOf(roots.a, id))).equals(bytes)).toBe(true)
      expect(await readdir(join(roots.a, 'quarantine'))).toHaveLength(1)
      expect(await wishes()).toEqual([])
    },
  )

  it.each(['shorter', 'longer', 'missing'])('heals a copy that is %s', async (fault) => {
    const bodies = open()
    const bytes = randomBytes(mib + 100)
    const { id } = await bodies.put(streamOf(bytes))
    const path = fileOf(roots.a, id)
    if (fault === 'missing') await rm(path)
    else await writeFile(path, fault === 'shorter' ? bytes.subarray(1) : Buffer.concat([bytes, bytes]))
    expect((await contentOf(bodies, id)).equals(bytes)).toBe(true)
    await bodies.idle()
    expect((await readFile(path)).equals(bytes)).toBe(true)
  })

  it('goes over to the other copy in the middle of a stream, without one wrong byte', async () => {
    const bodies = open()
    const bytes = randomBytes(6 * mib)
    const { id } = await bodies.put(streamOf(bytes))
    await flipBit(fileOf(roots.a, id), 2 * mib + 1)
    await flipBit(fileOf(roots.b, id), 10)
    // Each copy is bad, in another place. Only the part before the second fault can be answered from them.
    expect((await contentOf(bodies, id, { start: mib })).equals(bytes.subarray(mib))).toBe(true)
  })

  it('is refused when both copies are bad, which is reported and never served', async () => {
    const bodies = open()
    const bytes = randomBytes(5_000)
    const { id } = await bodies.put(streamOf(bytes))
    await flipBit(fileOf(roots.a, id), 1)
    await flipBit(fileOf(roots.b, id), 2)
    const refused = { code: 'BODY_CORRUPT', traits: { status: 503, report: true } }
    await expect(bodies.get(id)).rejects.toMatchObject(refused)
    await bodies.idle()
    expect(await wishes()).toHaveLength(1)
    expect(await bodies.repair(id)).toMatchObject({ lost: true, sound: [], written: [] })
    expect(await bodies.put(streamOf(bytes))).toMatchObject({ copies: 2 })
    expect((await contentOf(bodies, id)).equals(bytes)).toBe(true)
  })

  it('breaks off before the first wrong byte when both copies are bad later on', async () => {
    const bodies = open()
    const bytes = randomBytes(4 * mib)
    const { id } = await bodies.put(streamOf(bytes))
    for (const root of [roots.a, roots.b]) await flipBit(fileOf(root, id), 2 * mib + 5)
    const { stream } = await bodies.get(id)
    const got: Buffer[] = []
    const reading = (async () => {
      for await (const chunk of stream as AsyncIterable<Buffer>) got.push(chunk)
    })()
    await expect(reading).rejects.toMatchObject({ code: 'BODY_CORRUPT' })
    expect(Buffer.concat(got).equals(bytes.subarray(0, 2 * mib))).toBe(true)
    await bodies.idle()
  })

  it('believes an absence only when every store said so', async () => {
    const [a, b] = twoStores()
    const bodies = open({ stores: [a, b] })
    const { id } = await bodies.put(streamOf(Buffer.from('here')))
    await rm(fileOf(roots.a, id))
    const away = (): Promise<never> => Promise.reject(BODY_UNAVAILABLE({ store: 'b', reason: 'away' }))
    const halfBlind = open({ stores: [a, altered(b, { open: away, put: away, quarantine: away })] })
    await expect(halfBlind.get(id)).rejects.toMatchObject({ code: 'BODY_UNAVAILABLE' })
    await halfBlind.idle()
    const hanging = open({
      stores: [a, altered(b, { open: () => new Promise(() => undefined) })],
      timeoutMs: 50,
    })
    await expect(hanging.get(id)).rejects.toMatchObject({ code: 'BODY_TIMEOUT' })
    await hanging.idle()
    const unconfigured = open({ stores: [a] })
    await expect(unconfigured.get(id)).rejects.toMatchObject({
      code: 'BODY_UNAVAILABLE',
      message: expect.stringContaining('BODY_STORES'),
    })
    await unconfigured.idle()
    await rm(fileOf(roots.b, id))
    // It was here, and may be again: nobody may remember that it is not.
    const lost = { code: 'BODY_CORRUPT', message: expect.stringContaining('no store has a copy') }
    await expect(bodies.get(id)).rejects.toMatchObject(lost)
    await bodies.idle()
    await expect(bodies.get(id)).rejects.toMatchObject(lost)
    await expect(bodies.get(sha256('never put'))).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
  })

  it('does not believe the row of another body, nor a damaged one', async () => {
    const bodies = open()
    const one = await bodies.put(streamOf(Buffer.from('one 1')))
    const two = await bodies.put(streamOf(Buffer.from('two 2')))
    await postgres.query(
      'UPDATE bodies SET chunks = (SELECT chunks FROM bodies WHERE id = $1) WHERE id = $2',
      [one.id, two.id],
    )
    // The bytes of the other body, and the digests that they have: nothing but the seal tells them from ours.
    for (const root of [roots.a, roots.b]) await writeFile(fileOf(root, two.id), 'one 1')
    await expect(bodies.get(two.id)).rejects.toMatchObject({ code: 'BODY_CORRUPT' })
    expect((await contentOf(bodies, one.id)).toString()).toBe('one 1')
  })

  it('refuses a store that is not the place that it was', async () => {
    const [a, b] = twoStores()
    const bytes = Buffer.from('mine')
    const { id } = await open({ stores: [a, b] }).put(streamOf(bytes))
    await rm(roots.b, { recursive: true })
    const bodies = open({ stores: [storeIn(roots.a, 'a'), storeIn(roots.b, 'b')] })
    await expect(bodies.put(streamOf(Buffer.from('new')))).rejects.toMatchObject({
      code: 'BODY_UNAVAILABLE',
      message: expect.stringContaining('is the disk mounted?'),
    })
    expect(await contentOf(bodies, id)).toEqual(bytes)
  })

  it('closes its files and gives its place back when the reader goes away in the middle', async () => {
    const bodies = open({ maxTransfers: 1 })
    const { id } = await bodies.put(streamOf(randomBytes(8 * mib)))
    const descriptors = async (): Promise<number> => (await readdir('/proc/self/fd')).length
    const before = await descriptors()
    for (let round = 0; round < 20; round++) {
      const { stream } = await bodies.get(id)
      if (round % 2 === 0) stream.resume().once('data', () => stream.destroy())
      else stream.destroy()
      await new Promise((resolve) => stream.once('close', resolve))
    }
    await expect.poll(descriptors).toBeLessThanOrEqual(before + 2)
    const aborting = new AbortController()
    const { stream } = await bodies.get(id, { signal: aborting.signal })
    aborting.abort(new Error('enough'))
    await expect(stream.toArray()).rejects.toThrow('enough')
  })
})

describe('a read', () => {
  it('yields the bytes from where it is told, and nothing from the end', async () => {
    const bodies = open()
    const bytes = randomBytes(2 * mib)
    const { id } = await bodies.put(streamOf(bytes))
    for (const start of [0, 1, mib, 2 * mib - 1, 2 * mib]) {
      const parts: Uint8Array[] = []
      for await (const part of bodies.read(id, { start })) parts.push(part)
      expect(Buffer.concat(parts).equals(bytes.subarray(start))).toBe(true)
    }
  })
})
