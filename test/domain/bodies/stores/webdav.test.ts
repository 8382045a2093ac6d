import { createHash, randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { createSystemClock } from '../../../../src/core/clock.ts'
import { sha256 } from '../../../../src/core/digest.ts'
import type { BodyStore } from '../../../../src/domain/bodies/body-store.ts'
import { createWebdavStore } from '../../../../src/domain/bodies/stores/webdav.ts'
import { exerciseBodyStore, readAll, sourceOf } from '../../../contracts/body-store.ts'
import { hasNginx, type Nginx, startNginx } from '../../../support/nginx.ts'
import { startWebdavServer } from '../../../support/webdav-server.ts'

const clock = createSystemClock()
const storeOn = (url: URL): BodyStore =>
  createWebdavStore({ url, clock, timeoutMs: 2_000, spoolFolder: tmpdir() })

exerciseBodyStore('a server that is all of WebDAV', async () => {
  const server = await startWebdavServer()
  const url = new URL('/dav/a folder', server.url)
  const store = storeOn(url)
  const released = [store]
  await store.identity()
  return {
    store,
    again: async () => {
      const other = storeOn(url)
      released.push(other)
      return other
    },
    plant: async (id, bytes) => {
      server.files.set(`/dav/a folder/bodies/${id.slice(0, 2)}/${id}`, Buffer.from(bytes))
    },
    takeAway: () => server.stop(),
    swap: async () => {
      const away = { files: [...server.files], folders: [...server.folders] }
      server.files.clear()
      server.folders.clear()
      server.folders.add('/')
      return async () => {
        server.files.clear()
        for (const [path, bytes] of away.files) server.files.set(path, bytes)
        for (const path of away.folders) server.folders.add(path)
      }
    },
    release: async () => {
      for (const each of released) await each.close()
      await server.stop()
    },
  }
})

it('makes no place where its own is gone', async () => {
  const server = await startWebdavServer()
  const store = storeOn(new URL('/dav', server.url))
  onTestFinished(async () => {
    await store.close()
    await server.stop()
  })
  await store.put(sha256('before'), sourceOf(Buffer.from('before')))
  server.files.clear()
  server.folders.clear()
  server.folders.add('/')
  await expect(store.put(sha256('x'), sourceOf(Buffer.from('x')))).rejects.toMatchObject({
    code: 'BODY_UNAVAILABLE',
  })
  expect([...server.folders]).toEqual(['/'])
})

describe.runIf(hasNginx)('nginx', () => {
  let nginx: Nginx
  let places = 0
  beforeAll(async () => {
    nginx = await startNginx()
  })
  afterAll(() => nginx.stop())

  exerciseBodyStore('nginx with WebDAV', async () => {
    const place = `place-${++places}`
    const url = new URL(`${nginx.url.href}/${place}`)
    const store = storeOn(url)
    const released: BodyStore[] = [store]
    return {
      store,
      again: async () => {
        const other = storeOn(url)
        released.push(other)
        // The identity of a place is made by one process at a time: a lock in Postgres sees to that.
        await store.identity()
        return other
      },
      plant: (id, bytes) => writeFile(join(nginx.root, place, 'bodies', id.slice(0, 2), id), bytes),
      takeAway: () => nginx.kill(),
      swap: async () => {
        const root = join(nginx.root, place)
        await rename(root, `${root}.away`)
        return async () => {
          await rm(root, { recursive: true })
          await rename(`${root}.away`, root)
        }
      },
      release: async () => {
        for (const each of released) await each.close()
        await nginx.kill()
        await nginx.start()
      },
    }
  })

  it('does not take an empty folder for a store without bodies', async () => {
    const own = await startNginx()
    const store = storeOn(own.url)
    const id = sha256('x')
    await store.put(id, sourceOf(Buffer.from('x')))
    await own.replaceDisk()
    await own.start()
    for (const work of [store.open, store.stat]) {
      await expect(work(id)).rejects.toMatchObject({
        code: 'BODY_UNAVAILABLE',
        message: expect.stringContaining('not the place'),
      })
    }
    await store.close()
  })

  it('keeps the bad copy in quarantine', async () => {
    const store = storeOn(new URL(`${nginx.url.href}/bad`))
    const id = sha256('good')
    await store.put(id, sourceOf(Buffer.from('good')))
    await writeFile(join(nginx.root, 'bad/bodies', id.slice(0, 2), id), 'evil')
    expect(await store.quarantine(id)).toBe(true)
    const [kept = ''] = await readdir(join(nginx.root, 'bad/quarantine'))
    expect(await readFile(join(nginx.root, 'bad/quarantine', kept), 'utf8')).toBe('evil')
    await store.close()
  })

  it('leaves no half body when it is killed in the middle of a put', async () => {
    const own = await startNginx()
    const store = storeOn(own.url)
    await store.identity()
    const bytes = randomBytes(30_000_000)
    const id = createHash('sha256').update(bytes).digest('hex')
    for (let round = 0; round < 10; round++) {
      let sent = 0
      const source = {
        size: bytes.length,
        open: async function* () {
          for (let at = 0; at < bytes.length; at += 65_536) {
            if (sent++ === round * 40 + 5) void own.kill()
            yield bytes.subarray(at, at + 65_536)
          }
        },
      }
      await expect(store.put(id, source)).rejects.toMatchObject({ code: 'BODY_UNAVAILABLE' })
      await own.kill()
      await own.start()
      await expect(store.stat(id)).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
    }
    await store.put(id, sourceOf(bytes))
    expect((await readAll(store, id)).equals(bytes)).toBe(true)
    await store.close()
  }, 30_000)

  it('that lists no folders is a store all the same, and says that it cannot list', async () => {
    const store = storeOn(new URL(`${nginx.url.href}/unlisted`))
    await store.identity()
    await mkdir(join(nginx.root, 'unlisted/bodies'), { recursive: true })
    await writeFile(join(nginx.root, 'unlisted/bodies/index.html'), '<html>')
    await expect(store.list(undefined, 10)).rejects.toMatchObject({
      code: 'BODY_UNAVAILABLE',
      message: expect.stringContaining('autoindex_format json'),
    })
    await store.close()
  })
})
