/** A value as COPY BINARY sends it: a text, a number of 4 or 8 bytes, an instant in µs since the Unix epoch, bytes. */
export type Field =
  | { type: 'text'; value: string }
  | { type: 'int4' | 'int8' | 'instant'; value: number }
  | { type: 'bytes'; value: Buffer }
  | { type: 'null' }

const header = Buffer.concat([Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), Buffer.alloc(8)])
const trailer = Buffer.from([0xff, 0xff])
/** Postgres counts instants from 2000-01-01. */
const postgresEpochMicros = 946_684_800_000_000
const chunkBytes = 128 * 1024

/** Values above it are passed on as they are, those below are gathered. */
const largeBytes = 16 * 1024

/**
 * Rows in the binary format of COPY, in chunks. Large values are not copied.
 *
 * Format: PostgreSQL documentation, COPY, "Binary Format".
 */
export async function* encodeRows(rows: AsyncIterable<Field[]>): AsyncIterable<Buffer> {
  const chunk = createChunk()
  chunk.bytes(header)
  for await (const row of rows) {
    chunk.fields(row.length)
    for (const field of row) {
      if (field.type === 'bytes' && field.value.length > largeBytes) {
        chunk.length(field.value.length)
        yield chunk.take()
        yield field.value
      } else chunk.field(field)
    }
    if (chunk.size >= chunkBytes) yield chunk.take()
  }
  chunk.bytes(trailer)
  yield chunk.take()
}

/** Gathers small values in one buffer, since a buffer for each of them costs more than its bytes. */
function createChunk() {
  let buffer = Buffer.allocUnsafe(chunkBytes + largeBytes)
  let size = 0
  const room = (bytes: number): void => {
    if (size + bytes <= buffer.length) return
    buffer = Buffer.concat([buffer.subarray(0, size)], Math.max(buffer.length * 2, size + bytes))
  }
  const length = (bytes: number): void => {
    room(4)
    size = buffer.writeInt32BE(bytes, size)
  }
  const bytes = (value: Buffer): void => {
    room(value.length)
    size += value.copy(buffer, size)
  }
  const text = (value: string): void => {
    const needed = Buffer.byteLength(value)
    length(needed)
    room(needed)
    size += buffer.write(value, size)
  }
  const field = (each: Field): void => {
    if (each.type === 'null') return length(-1)
    if (each.type === 'bytes') {
      length(each.value.length)
      return bytes(each.value)
    }
    if (each.type === 'text') return text(each.value)
    length(each.type === 'int4' ? 4 : 8)
    if (each.type === 'int4') return length(each.value)
    room(8)
    const value = each.type === 'instant' ? each.value - postgresEpochMicros : each.value
    size = buffer.writeBigInt64BE(BigInt(value), size)
  }
  return {
    get size() {
      return size
    },
    bytes,
    length,
    field,
    fields: (count: number): void => {
      room(2)
      size = buffer.writeInt16BE(count, size)
    },
    /** What was gathered; the next values go to a buffer of their own. */
    take: (): Buffer => {
      const taken = buffer.subarray(0, size)
      buffer = Buffer.allocUnsafe(chunkBytes + largeBytes)
      size = 0
      return taken
    },
  }
}
