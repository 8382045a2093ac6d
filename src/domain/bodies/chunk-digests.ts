import { createHash } from 'node:crypto'

/**
 * A body is verified in chunks of this many bytes: nothing is believed before its chunk is whole, so this is
 * also what a reader holds in memory.
 */
export const chunkBytes = 1_048_576
const digestBytes = 32

export interface BodyDigest {
  /** sha256 of the whole, 64 hex digits. */
  id: string
  size: number
  /** What a row keeps: the sha256 of each chunk, and their seal. */
  chunks: Buffer
}

export interface BodyHasher {
  readonly size: number
  update(bytes: Uint8Array): void
  digest(): BodyDigest
}

/** Takes the digest of the whole and of each chunk in one pass. */
export function createBodyHasher(): BodyHasher {
  const whole = createHash('sha256')
  const digests: Buffer[] = []
  // The first chunk is the whole so far, so a small body is hashed once only.
  let chunk: ReturnType<typeof createHash> | undefined
  let size = 0

  const endChunk = (): void => {
    digests.push((chunk ?? whole.copy()).digest())
    chunk = createHash('sha256')
  }

  return {
    get size() {
      return size
    },
    update: (bytes) => {
      for (let offset = 0; offset < bytes.length; ) {
        const room = chunkBytes - (size % chunkBytes)
        const part = bytes.subarray(offset, offset + room)
        whole.update(part)
        chunk?.update(part)
        size += part.length
        offset += part.length
        if (part.length === room) endChunk()
      }
    },
    digest: () => {
      if (size % chunkBytes !== 0 || size === 0) endChunk()
      const id = whole.digest('hex')
      const list = Buffer.concat(digests)
      return { id, size, chunks: Buffer.concat([list, sealOf(id, size, list)]) }
    },
  }
}

/** Binds the list to its body: the row of another body, or one that was damaged, does not pass. */
function sealOf(id: string, size: number, list: Uint8Array): Buffer {
  return createHash('sha256').update(`${id}:${size}:`).update(list).digest()
}

/** How many chunks a body has; an empty body has one, which is empty. */
export const chunkCount = (size: number): number => Math.max(1, Math.ceil(size / chunkBytes))

/** Whether a row's list of digests is the one that was made for this id and size. */
export function areSealed({ id, size, chunks }: BodyDigest): boolean {
  const list = chunks.subarray(0, -digestBytes)
  if (list.length !== chunkCount(size) * digestBytes) return false
  return sealOf(id, size, list).equals(chunks.subarray(-digestBytes))
}

/** Whether the bytes are chunk number `index` of the body. */
export function isChunk(body: BodyDigest, index: number, bytes: Uint8Array): boolean {
  const expected = body.chunks.subarray(index * digestBytes, (index + 1) * digestBytes)
  return createHash('sha256').update(bytes).digest().equals(expected)
}
