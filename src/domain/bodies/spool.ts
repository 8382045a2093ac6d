import { randomUUID } from 'node:crypto'
import { type FileHandle, mkdir, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, messageOf } from '../../core/errors.ts'
import type { BodySource } from './body-store.ts'
import { BODY_UNAVAILABLE } from './errors.ts'

/** Bytes kept here until their id is known. Small ones in memory, the rest in a file without a name. */
export interface Spool {
  write(chunk: Uint8Array): Promise<void>
  /** What was written so far; may be opened several times at once. */
  source(): BodySource
  close(): Promise<void>
}

export interface SpoolOptions {
  folder: string
  /** Beyond this a file is used. */
  memoryBytes: number
}

const readBytes = 262_144

export function createSpool({ folder, memoryBytes }: SpoolOptions): Spool {
  let parts: Uint8Array[] = []
  let size = 0
  let file: FileHandle | undefined

  const toFile = async (chunk: Uint8Array): Promise<void> => {
    if (!file) {
      file = await openNameless(folder)
      for (const part of parts) await file.appendFile(part)
      parts = []
    }
    await file.appendFile(chunk)
  }

  return {
    write: async (chunk) => {
      size += chunk.length
      if (!file && size <= memoryBytes) return void parts.push(chunk)
      await toFile(chunk).catch((error: unknown) => {
        throw BODY_UNAVAILABLE(
          { store: 'spool', reason: messageOf(error).split(',')[0] ?? '' },
          { cause: error },
        )
      })
    },
    source: () => {
      const from = file
      return { size, open: () => (from ? readFile(from, size) : inMemory(parts)) }
    },
    close: async () => {
      parts = []
      await file?.close()
    },
  }
}

/** Its name is taken away at once, so that a process which dies leaves nothing on the disk. */
async function openNameless(folder: string): Promise<FileHandle> {
  const path = join(folder, `baton-spool-${randomUUID()}`)
  const file = await open(path, 'wx+', 0o600).catch(async (error: unknown) => {
    if (codeOf(error) !== 'ENOENT') throw error
    await mkdir(folder, { recursive: true, mode: 0o700 })
    return open(path, 'wx+', 0o600)
  })
  await rm(path)
  return file
}

async function* readFile(file: FileHandle, size: number): AsyncGenerator<Uint8Array> {
  for (let position = 0; position < size; ) {
    const { bytesRead, buffer } = await file.read(
      Buffer.allocUnsafe(Math.min(readBytes, size - position)),
      0,
      null,
      position,
    )
    if (bytesRead === 0) throw new Error('the spool ended early')
    position += bytesRead
    yield buffer.subarray(0, bytesRead)
  }
}

async function* inMemory(parts: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* parts
}
