import { createHash, randomUUID } from 'node:crypto'
import { constants, type FileHandle, link, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import type { Clock } from '../../../core/clock.ts'
import { assertBodyId, isBodyId } from '../body-id.ts'
import type { BodySource, BodyStore, OpenBody, Slice, StagedBody, StoredBody } from '../body-store.ts'
import { chunkBytes } from '../chunk-digests.ts'
import { BODY_NOT_FOUND } from '../errors.ts'
import { createDirectoryGround, type DirectoryGround, syncDirectory } from './directory-ground.ts'

export interface DirectoryStoreOptions {
  /** Made when missing. One file system: a body is renamed from one folder of it to another. */
  root: string
  clock: Clock
  /** `file:` and the root unless said. */
  name?: string
}

/**
 * Bodies as files: `bodies/ab/abcd…`, written as `incoming/<random>` and renamed. A writer that dies leaves only
 * a file in `incoming`, which nobody reads and `sweepStaged` removes. After a power cut the rename is either
 * there with all its bytes or not at all, since the file is flushed before it and the folder after it.
 */
export function createDirectoryStore(options: DirectoryStoreOptions): BodyStore {
  const ground = createDirectoryGround(options.root, options.name ?? `file:${options.root}`)
  const list = createLister(ground)

  const stage = async (): Promise<StagedBody> => {
    await ground.settled()
    return ground.guard(() => stageFile(ground))
  }

  const put = async (id: string, source: BodySource, signal?: AbortSignal): Promise<void> => {
    assertBodyId(id)
    const staged = await stage()
    try {
      for await (const chunk of source.open()) {
        signal?.throwIfAborted()
        await staged.write(chunk)
      }
      await staged.seal()
      await staged.commit(id)
    } catch (error) {
      await staged.discard()
      throw error
    }
  }

  const onBody = async <T>(id: string, work: () => Promise<T>): Promise<T> => {
    assertBodyId(id)
    await ground.settled()
    return ground.guardBody(id, work)
  }

  return {
    name: ground.name,
    identity: ground.identity,
    stage,
    put,
    open: (id, slice) => onBody(id, () => openFile(ground.pathOf(id), slice)),
    take: (id, size) => onBody(id, () => takeFile(ground.pathOf(id), size)),
    stat: (id) => onBody(id, () => statFile(ground, id)),
    remove: (id) => presence(onBody(id, () => removeFile(ground, id))),
    list: async (after, limit) => {
      await ground.settled()
      return ground.guard(() => list(after, limit))
    },
    quarantine: (id) => presence(onBody(id, () => quarantineFile(ground, id))),
    sweepStaged: async (ageMs) => {
      await ground.settled()
      return ground.guard(() => sweepOlder(ground.incoming, options.clock.now() - ageMs))
    },
    close: async () => undefined,
  }
}

/** False for what is not there, where that is an answer and not an error. */
async function presence(work: Promise<boolean>): Promise<boolean> {
  try {
    return await work
  } catch (error) {
    if (BODY_NOT_FOUND.is(error)) return false
    throw error
  }
}

async function stageFile(ground: DirectoryGround): Promise<StagedBody> {
  const path = join(ground.incoming, randomUUID())
  const handle = await open(path, 'wx', 0o640)
  let closed = false
  let committed = false
  const close = async (): Promise<void> => {
    if (closed) return
    closed = true
    await handle.close()
  }
  return {
    write: (chunk) => ground.guard(() => writeAll(handle, chunk)),
    seal: () => ground.guard(() => handle.sync().then(close)),
    commit: async (id) => {
      assertBodyId(id)
      await ground.guard(() => publish(ground, path, id))
      committed = true
    },
    discard: async () => {
      if (committed) return
      await close().catch(() => undefined)
      await rm(path, { force: true }).catch(() => undefined)
    },
  }
}

async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let offset = 0; offset < chunk.length; ) {
    const { bytesWritten } = await handle.write(chunk, offset)
    offset += bytesWritten
  }
}

async function publish(ground: DirectoryGround, staged: string, id: string): Promise<void> {
  await ground.assertSame()
  const folder = ground.folderOf(id)
  try {
    await rename(staged, ground.pathOf(id))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    await makeFolder(ground, folder)
    await rename(staged, ground.pathOf(id))
  }
  await syncDirectory(folder)
}

/** Not recursive: when the whole tree is gone, the disk is, and nothing may be built in its place. */
async function makeFolder(ground: DirectoryGround, folder: string): Promise<void> {
  await mkdir(folder, 0o750).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
  await syncDirectory(ground.bodies)
}

const readBytes = chunkBytes

async function openFile(path: string, slice: Slice = {}): Promise<OpenBody> {
  // A symbolic link under the name of a body was put there by somebody else.
  const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    const { size } = await handle.stat()
    const start = Math.min(slice.start ?? 0, size)
    const end = Math.min(slice.end ?? size, size)
    if (start >= end) {
      await handle.close()
      return { size, stream: Readable.from([]) }
    }
    return { size, stream: handle.createReadStream({ start, end: end - 1, highWaterMark: readBytes }) }
  } catch (error) {
    await handle.close().catch(() => undefined)
    throw error
  }
}

/** One byte more is asked for, so that a longer file is told from one of that size without another question. */
async function takeFile(path: string, size: number): Promise<Uint8Array> {
  const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    const buffer = Buffer.allocUnsafe(size + 1)
    let filled = 0
    while (filled <= size) {
      const { bytesRead } = await handle.read(buffer, filled, size + 1 - filled, filled)
      filled += bytesRead
      if (bytesRead === 0 || filled === size) break
    }
    return buffer.subarray(0, filled)
  } finally {
    await handle.close()
  }
}

async function statFile(ground: DirectoryGround, id: string): Promise<StoredBody> {
  const { size, mtimeMs } = await stat(ground.pathOf(id))
  return { id, size, modifiedAt: Math.round(mtimeMs) }
}

async function removeFile(ground: DirectoryGround, id: string): Promise<boolean> {
  await rm(ground.pathOf(id))
  await syncDirectory(ground.folderOf(id))
  return true
}

/**
 * Moves first and looks afterwards: between a look and a move somebody may put a sound copy there. One that
 * proves sound goes back by `link`, which unlike `rename` does not write over a newer one.
 */
async function quarantineFile(ground: DirectoryGround, id: string): Promise<boolean> {
  const aside = join(ground.quarantine, `${id}.${randomUUID()}`)
  await rename(ground.pathOf(id), aside)
  const bad = (await hashFile(aside)) !== id
  if (!bad) {
    await link(aside, ground.pathOf(id)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
    await rm(aside)
  }
  await syncDirectory(ground.folderOf(id))
  await syncDirectory(ground.quarantine)
  return bad
}

/** Undefined when it cannot be read to its end, which is as bad as wrong bytes. */
async function hashFile(path: string): Promise<string | undefined> {
  const hash = createHash('sha256')
  try {
    const { stream } = await openFile(path)
    for await (const chunk of stream as AsyncIterable<Buffer>) hash.update(chunk)
  } catch {
    return undefined
  }
  return hash.digest('hex')
}

async function sweepOlder(folder: string, before: number): Promise<number> {
  let swept = 0
  for (const name of await readdir(folder)) {
    const path = join(folder, name)
    const found = await stat(path).catch(() => undefined)
    if (!found || found.mtimeMs > before) continue
    await rm(path, { force: true })
    swept++
  }
  return swept
}

/** Remembers the folder that the last page ended in: to read it anew for each page would cost its square. */
function createLister(
  ground: DirectoryGround,
): (after: string | undefined, limit: number) => Promise<StoredBody[]> {
  let listed: { prefix: string; names: string[] } | undefined

  const namesOf = async (prefix: string, after: string | undefined): Promise<string[]> => {
    if (listed?.prefix !== prefix || !after?.startsWith(prefix)) {
      const names = await readdir(join(ground.bodies, prefix)).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return []
        throw error
      })
      listed = { prefix, names: names.filter(isBodyId).sort() }
    }
    return after === undefined ? listed.names : listed.names.filter((name) => name > after)
  }

  return async (after, limit) => {
    const page: StoredBody[] = []
    const prefixes = (await readdir(ground.bodies)).sort()
    for (const prefix of prefixes.filter((each) => after === undefined || each >= after.slice(0, 2))) {
      for (const id of await namesOf(prefix, after)) {
        const found = await statFile(ground, id).catch(() => undefined)
        if (found) page.push(found)
        if (page.length >= limit) return page
      }
    }
    return page
  }
}
