import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { createSystemClock } from '../../../../src/core/clock.ts'
import { sha256 } from '../../../../src/core/digest.ts'
import { createDirectoryStore } from '../../../../src/domain/bodies/stores/directory.ts'
import { exerciseBodyStore, readAll, sourceOf } from '../../../contracts/body-store.ts'

const clock = createSystemClock()

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'baton-bodies-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  return folder
}

const pathOf = (root: string, id: string): string => join(root, 'bodies', id.slice(0, 2), id)

exerciseBodyStore('a directory', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'baton-bodies-'))
  const root = join(folder, 'store')
  return {
    store: createDirectoryStore({ root, clock }),
    again: async () => createDirectoryStore({ root, clock }),
    plant: (id, bytes) => writeFile(pathOf(root, id), bytes),
    takeAway: () => rename(root, join(folder, 'unmounted')),
    swap: async () => {
      await rename(root, join(folder, 'unmounted'))
      return async () => {
        await rm(root, { recursive: true })
        await rename(join(folder, 'unmounted'), root)
      }
    },
    release: () => rm(folder, { recursive: true, force: true }),
  }
})

describe('a directory', () => {
  it('keeps the bad copy in quarantine for people to look at', async () => {
    const root = await temporaryFolder()
    const store = createDirectoryStore({ root, clock })
    const id = sha256('good')
    await store.put(id, sourceOf(Buffer.from('good')))
    await writeFile(pathOf(root, id), 'evil')
    await store.quarantine(id)
    const [kept = ''] = await readdir(join(root, 'quarantine'))
    expect(kept.startsWith(id)).toBe(true)
    expect(await readFile(join(root, 'quarantine', kept), 'utf8')).toBe('evil')
  })

  it('does not follow a symbolic link that stands where a body should', async () => {
    const root = await temporaryFolder()
    const store = createDirectoryStore({ root, clock })
    await store.identity()
    const id = sha256('linked')
    await mkdir(join(root, 'bodies', id.slice(0, 2)))
    await symlink('/etc/hostname', pathOf(root, id))
    await expect(store.open(id)).rejects.toMatchObject({ code: 'BODY_UNAVAILABLE' })
  })

  it('is not fooled by an empty folder where its disk was mounted', async () => {
    const root = await temporaryFolder()
    const store = createDirectoryStore({ root, clock })
    const id = sha256('x')
    await store.put(id, sourceOf(Buffer.from('x')))
    await rm(root, { recursive: true })
    await mkdir(root)
    await expect(store.open(id)).rejects.toMatchObject({ code: 'BODY_UNAVAILABLE' })
    await expect(store.put(id, sourceOf(Buffer.from('x')))).rejects.toMatchObject({
      code: 'BODY_UNAVAILABLE',
    })
    expect(await readdir(root)).toEqual([])
    await createDirectoryStore({ root, clock }).identity()
    await expect(store.open(id)).rejects.toMatchObject({ code: 'BODY_UNAVAILABLE' })
  })

  it('sweeps what crashed writers left behind, once it is old', async () => {
    const root = await temporaryFolder()
    const store = createDirectoryStore({ root, clock })
    await store.identity()
    const [old, young] = [join(root, 'incoming', 'old'), join(root, 'incoming', 'young')]
    await writeFile(old, 'half')
    await writeFile(young, 'half')
    const hourAgo = Date.now() / 1000 - 3_600
    await utimes(old, hourAgo, hourAgo)
    expect(await store.sweepStaged(1_800_000)).toBe(1)
    expect(await readdir(join(root, 'incoming'))).toEqual(['young'])
  })
})

// Elsewhere the two are counted as not run, in the last line of the tests.
const mayMount = process.platform === 'linux' && process.getuid?.() === 0

/** A file system of its own for the time of the test. */
async function mounted(options: string): Promise<{ root: string; remount(with_: string): void }> {
  const root = await temporaryFolder()
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', root])
  onTestFinished(() => void execFileSync('umount', ['-l', root]))
  return { root, remount: (with_) => void execFileSync('mount', ['-o', `remount,${with_}`, root]) }
}

describe.runIf(mayMount)('a directory on a small file system', () => {
  it('says that it is full, keeps nothing of the body, and takes what fits again', async () => {
    const { root } = await mounted('size=2m')
    const store = createDirectoryStore({ root, clock })
    const big = randomBytes(4_000_000)
    await expect(store.put(sha256(big), sourceOf(big))).rejects.toMatchObject({
      code: 'BODY_UNAVAILABLE',
      message: expect.stringContaining('ENOSPC'),
    })
    expect(await readdir(join(root, 'incoming'))).toEqual([])
    expect(await store.list(undefined, 10)).toEqual([])
    const small = randomBytes(1_000_000)
    await store.put(sha256(small), sourceOf(small))
    expect(await readAll(store, sha256(small))).toEqual(small)
  })

  it('reads from a read-only disk, and says that it cannot write', async () => {
    const { root, remount } = await mounted('size=4m')
    const id = sha256('kept')
    await createDirectoryStore({ root, clock }).put(id, sourceOf(Buffer.from('kept')))
    remount('ro')
    const store = createDirectoryStore({ root, clock })
    expect((await readAll(store, id)).toString()).toBe('kept')
    const refused = { code: 'BODY_UNAVAILABLE', message: expect.stringContaining('EROFS') }
    await expect(store.put(sha256('new'), sourceOf(Buffer.from('new')))).rejects.toMatchObject(refused)
    await expect(store.remove(id)).rejects.toMatchObject(refused)
    await expect(store.stat(sha256('none'))).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
    remount('rw')
  })
})

describe('a writer that is killed', () => {
  // Writes bodies without end, and names each before it begins and after it ended.
  const writer = `
    import { createHash, randomBytes } from 'node:crypto'
    import { createDirectoryStore } from '${join(import.meta.dirname, '../../../../src/domain/bodies/stores/directory.ts')}'
    import { createSystemClock } from '${join(import.meta.dirname, '../../../../src/core/clock.ts')}'
    const store = createDirectoryStore({ root: process.argv[1], clock: createSystemClock() })
    for (;;) {
      const bytes = randomBytes(1 + Math.floor(Math.random() * 2_000_000))
      const id = createHash('sha256').update(bytes).digest('hex')
      await store.put(id, { size: bytes.length, open: async function* () {
        for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536)
      } })
      process.stdout.write(id + '\\n')
    }`

  it('leaves whole bodies only, with every one that it was told of, at 10 random points', async () => {
    const root = await temporaryFolder()
    const store = createDirectoryStore({ root, clock })
    for (let round = 0; round < 10; round++) {
      const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', writer, root], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      let told = ''
      child.stdout.on('data', (text: Buffer) => (told += text.toString()))
      await once(child.stdout, 'data')
      await clock.sleep(Math.random() * 30)
      child.kill('SIGKILL')
      await once(child, 'close')
      const ids = told.split('\n').filter((line) => line.length === 64)
      for (const id of ids) expect(sha256(await readAll(store, id))).toBe(id)
      for (const { id } of await store.list(undefined, 1_000)) {
        expect(sha256(await readAll(store, id))).toBe(id)
        await store.remove(id)
      }
    }
    const left = await readdir(join(root, 'incoming'))
    expect(await store.sweepStaged(-1_000)).toBe(left.length)
    expect(left.length).toBeGreaterThan(0)
  }, 60_000)
})
