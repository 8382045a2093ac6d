import { createHash, randomUUID } from 'node:crypto'
import type { Readable } from 'node:stream'
import { messageOf } from '../../../core/errors.ts'
import { assertBodyId } from '../body-id.ts'
import type { BodySource, BodyStore, OpenBody, Slice, StoredBody } from '../body-store.ts'
import { BODY_NOT_FOUND, BODY_UNAVAILABLE } from '../errors.ts'
import { createSpool } from '../spool.ts'

/** What a protocol has to be able to do with objects under keys such as `bodies/ab/abcd…` and `identity`. */
export interface RemoteObjects {
  readonly name: string
  /** Undefined: there is no such object. */
  get(key: string, slice?: Slice): Promise<RemoteObject | undefined>
  /** As `get` without the bytes, never over a connection that was used before. */
  head(key: string): Promise<RemoteHead | undefined>
  /** The sha256 is that of the bytes, where it is known. */
  put(
    key: string,
    source: BodySource,
    options: { sha256?: string; signal?: AbortSignal | undefined },
  ): Promise<void>
  /** False: there was nothing. */
  remove(key: string): Promise<boolean>
  list(after: string | undefined, limit: number): Promise<StoredBody[]>
  keyOf(id: string): string
  close(): void
}

export interface RemoteHead {
  size: number
  /** Epoch ms. */
  modifiedAt: number
  /** Changes when the object is written. */
  etag: string
}

export interface RemoteObject extends RemoteHead {
  stream: Readable
}

/** A store of bodies over a protocol for objects. */
export function createRemoteStore(objects: RemoteObjects, spoolFolder: string): BodyStore {
  const { name } = objects
  let known: string | undefined
  const identity = (): Promise<string> => readOrMakeIdentity(objects)
  /** The word of the place that this one works on: what stood there at its first use. */
  const settled = async (): Promise<string> => (known ??= await identity())

  const isSame = async (): Promise<boolean> => {
    const found = await readIdentity(objects)
    return found !== undefined && found === known
  }
  const elsewhere = (): Error => BODY_UNAVAILABLE({ store: name, reason: 'it is not the place that it was' })

  /** A server that was started over an empty folder has no bodies either. Only the place itself may say so. */
  const absent = async (id: string): Promise<Error> =>
    (await isSame()) ? BODY_NOT_FOUND({ id }) : elsewhere()

  return {
    name,
    identity,
    put: async (id, source, signal) => {
      assertBodyId(id)
      await settled()
      await objects.put(objects.keyOf(id), source, { sha256: id, signal })
      // A proxy's error page comes as a success too; a copy counts once the place shows it with its size.
      const [head, same] = await Promise.all([objects.head(objects.keyOf(id)), isSame()])
      if (!same) throw elsewhere()
      if (head?.size === source.size) return
      throw BODY_UNAVAILABLE({ store: name, reason: 'it said that it took the body, but does not have it' })
    },
    open: async (id, slice) => {
      assertBodyId(id)
      await settled()
      return openObject(await objects.get(objects.keyOf(id), slice), async () => {
        // The answer may have come over a connection that others used. Absence needs one of its own.
        if (await objects.head(objects.keyOf(id))) {
          return BODY_UNAVAILABLE({ store: name, reason: 'it contradicts itself' })
        }
        return absent(id)
      })
    },
    stat: async (id) => {
      assertBodyId(id)
      await settled()
      const head = await objects.head(objects.keyOf(id))
      if (!head) throw await absent(id)
      return { id, size: head.size, modifiedAt: head.modifiedAt }
    },
    remove: async (id) => {
      assertBodyId(id)
      await settled()
      return objects.remove(objects.keyOf(id))
    },
    list: async (after, limit) => {
      await settled()
      return objects.list(after, limit)
    },
    quarantine: async (id) => {
      assertBodyId(id)
      await settled()
      return quarantine(objects, id, spoolFolder)
    },
    sweepStaged: async () => 0,
    close: async () => objects.close(),
  }
}

async function openObject(found: RemoteObject | undefined, absent: () => Promise<Error>): Promise<OpenBody> {
  if (!found) throw await absent()
  return { size: found.size, stream: found.stream }
}

const identityKey = 'identity'

async function readIdentity(objects: RemoteObjects): Promise<string | undefined> {
  const head = await objects.head(identityKey)
  if (!head) return undefined
  const found = await objects.get(identityKey)
  if (!found) return undefined
  const pieces = await found.stream.toArray().catch((error: unknown) => {
    throw BODY_UNAVAILABLE({ store: objects.name, reason: messageOf(error) }, { cause: error })
  })
  return Buffer.concat(pieces as Buffer[])
    .toString('utf8')
    .trim()
}

/** Not safe against another process that does the same at the same moment: see `recognize`, which locks. */
async function readOrMakeIdentity(objects: RemoteObjects): Promise<string> {
  const found = await readIdentity(objects)
  if (found !== undefined && found !== '') return found
  await objects.put(identityKey, inMemory(Buffer.from(`${randomUUID()}\n`)), {})
  const made = await readIdentity(objects)
  if (made) return made
  throw BODY_UNAVAILABLE({ store: objects.name, reason: 'it does not keep what is put there' })
}

const inMemory = (bytes: Uint8Array): BodySource => ({
  size: bytes.length,
  open: async function* () {
    yield bytes
  },
})

/** Copied aside before it is removed, and removed only if nobody has written it since it was read. */
async function quarantine(objects: RemoteObjects, id: string, spoolFolder: string): Promise<boolean> {
  const key = objects.keyOf(id)
  const found = await objects.get(key)
  if (!found) return false
  const spool = createSpool({ folder: spoolFolder, memoryBytes: 1_048_576 })
  try {
    const hash = createHash('sha256')
    for await (const chunk of found.stream as AsyncIterable<Buffer>) {
      hash.update(chunk)
      await spool.write(chunk)
    }
    const digest = hash.digest('hex')
    if (digest === id) return false
    await objects.put(`quarantine/${id}.${randomUUID()}`, spool.source(), { sha256: digest })
    const now = await objects.head(key)
    if (now?.etag !== found.etag) return false
    return await objects.remove(key)
  } finally {
    await spool.close()
  }
}
