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

/**
 * Rows in the binary format of COPY, in chunks. Large values are passed on without being copied.
 *
 * Format: PostgreSQL documentation, COPY, "Binary Format".
 */
export async function* encodeRows(rows: AsyncIterable<Field[]>): AsyncIterable<Buffer> {
  let parts: Buffer[] = [header]
  let size = header.length
  for await (const row of rows) {
    for (const part of encodeRow(row)) {
      parts.push(part)
      size += part.length
    }
    if (size < chunkBytes) continue
    yield Buffer.concat(parts)
    parts = []
    size = 0
  }
  parts.push(trailer)
  yield Buffer.concat(parts)
}

function encodeRow(fields: Field[]): Buffer[] {
  const parts: Buffer[] = []
  let small = Buffer.alloc(2)
  small.writeInt16BE(fields.length)
  for (const field of fields) {
    const value = encodeField(field)
    const length = Buffer.alloc(4)
    length.writeInt32BE(value?.length ?? -1)
    if (value && value.length > 8_192) {
      parts.push(small, length, value)
      small = Buffer.alloc(0)
    } else {
      small = Buffer.concat(value ? [small, length, value] : [small, length])
    }
  }
  parts.push(small)
  return parts
}

function encodeField(field: Field): Buffer | undefined {
  switch (field.type) {
    case 'null':
      return undefined
    case 'text':
      return Buffer.from(field.value)
    case 'bytes':
      return field.value
    case 'int4': {
      const four = Buffer.alloc(4)
      four.writeInt32BE(field.value)
      return four
    }
    case 'int8':
      return eight(field.value)
    case 'instant':
      return eight(field.value - postgresEpochMicros)
  }
}

function eight(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64BE(BigInt(value))
  return bytes
}
