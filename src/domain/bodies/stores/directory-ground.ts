import { randomUUID } from 'node:crypto'
import { link, mkdir, open, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createBatcher } from '../../../core/batcher.ts'
import { BatonError, codeOf, messageOf } from '../../../core/errors.ts'
import { BODY_NOT_FOUND, BODY_UNAVAILABLE } from '../errors.ts'

/** The folders of a directory store, and what a failure of one of its files means. */
export interface DirectoryGround {
  readonly name: string
  readonly bodies: string
  readonly incoming: string
  readonly quarantine: string
  folderOf(id: string): string
  pathOf(id: string): string
  /** The word of what stands there now. Makes the folders and the word where there is nothing. */
  identity(): Promise<string>
  /** The word of the place that this one works on: what stood there at its first use. */
  settled(): Promise<string>
  /** @throws BODY_UNAVAILABLE when another place has taken its name: what is written there would be away with it */
  assertSame(): Promise<void>
  /** Names every failure of the file system BODY_UNAVAILABLE. */
  guard<T>(work: () => Promise<T>): Promise<T>
  /** The same for work on one body: when it is missing and the store is not, that is BODY_NOT_FOUND. */
  guardBody<T>(id: string, work: () => Promise<T>): Promise<T>
}

export function createDirectoryGround(root: string, name: string): DirectoryGround {
  const marker = join(root, 'identity')
  const bodies = join(root, 'bodies')
  let known: string | undefined

  const unavailable = (error: unknown): BatonError =>
    error instanceof BatonError
      ? error
      : BODY_UNAVAILABLE({ store: name, reason: reasonOf(error) }, { cause: error })

  const guard = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      throw unavailable(error)
    }
  }

  const elsewhere = (cause?: unknown): BatonError =>
    BODY_UNAVAILABLE(
      { store: name, reason: 'its identity file is gone or another; is the disk mounted?' },
      { cause },
    )
  // Only the place itself may say that it lacks a body: a disk that was unmounted has no files either.
  const isSame = createSameness(marker, () => known)

  const guardBody = async <T>(id: string, work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw unavailable(error)
      throw (await isSame()) ? BODY_NOT_FOUND({ id }, { cause: error }) : elsewhere(error)
    }
  }

  const identity = (): Promise<string> => guard(() => readOrMake(root, marker))
  return {
    name,
    bodies,
    incoming: join(root, 'incoming'),
    quarantine: join(root, 'quarantine'),
    folderOf: (id) => join(bodies, id.slice(0, 2)),
    pathOf: (id) => join(bodies, id.slice(0, 2), id),
    identity,
    settled: async () => (known ??= await identity()),
    assertSame: async () => {
      if (!(await isSame())) throw elsewhere()
    },
    guard,
    guardBody,
  }
}

/** Whether the known word stands there now. One look serves all who asked before it began. */
function createSameness(marker: string, known: () => string | undefined): () => Promise<boolean> {
  /** The file that held the known word: as long as that one stands there, it need not be read. */
  let seen: string | undefined
  const look = async (): Promise<boolean> => {
    const file = await stat(marker).then(
      ({ dev, ino, mtimeMs }) => `${dev} ${ino} ${mtimeMs}`,
      () => undefined,
    )
    if (file !== undefined && file === seen) return true
    const found = await readFile(marker, 'utf8').catch(() => '')
    if (known() === undefined || found.trim() !== known()) return false
    seen = file
    return true
  }
  const looks = createBatcher<void, boolean>({
    run: async (asked) => Array<boolean>(asked.length).fill(await look()),
    maxItems: 1_000,
  })
  return () => looks.add()
}

async function readOrMake(root: string, marker: string): Promise<string> {
  const found = await readFile(marker, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (found !== undefined && found.trim() !== '') return found.trim()
  for (const folder of ['bodies', 'incoming', 'quarantine']) {
    await mkdir(join(root, folder), { recursive: true, mode: 0o750 })
  }
  return makeIdentity(root, marker)
}

/** Two processes may do this at once: the first to link its word wins, and both read the same. */
async function makeIdentity(root: string, marker: string): Promise<string> {
  const draft = join(root, 'incoming', randomUUID())
  await writeFile(draft, `${randomUUID()}\n`, { flag: 'wx', flush: true, mode: 0o640 })
  await link(draft, marker).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
  await rm(draft, { force: true })
  await syncDirectory(root)
  return (await readFile(marker, 'utf8')).trim()
}

/** Makes names that were added to a folder, or taken from it, survive a power cut. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** `ENOSPC: no space left on device`, without the path: that is nobody's business but the operator's. */
const reasonOf = (error: unknown): string => messageOf(error).split(',')[0] ?? 'unknown'
