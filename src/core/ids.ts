import { randomBytes } from 'node:crypto'

/**
 * A UUID version 7 (RFC 9562): 48 bits of epoch ms, then random bits. Ordered by time, so that inserts
 * go to the right edge of an index and a page of rows can be continued from an id.
 */
export function newId(epochMs: number): string {
  const bytes = nextRandom()
  bytes.writeUIntBE(epochMs, 0, 6)
  bytes[6] = 0x70 | ((bytes[6] ?? 0) & 0x0f)
  bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f)
  const hex = bytes.toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}

const nextRandom = createRandomPool()

/** Draws 16 bytes at a time from a block, since one system call an id would cost more than the id. */
function createRandomPool(): () => Buffer {
  const blockSize = 16 * 256
  let block = Buffer.alloc(0)
  let offset = 0
  return () => {
    if (offset >= block.length) {
      block = randomBytes(blockSize)
      offset = 0
    }
    offset += 16
    return Buffer.from(block.subarray(offset - 16, offset))
  }
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** Whether a text from outside has the form of an id; anything else cannot be one of ours. */
export const isId = (text: string): boolean => uuid.test(text)
