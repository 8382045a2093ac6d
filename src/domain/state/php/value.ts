import { scanSerialized } from './serialized.ts'

/** What was serialized. Texts are bytes; an array keeps its order, with keys as PHP has them. */
export type PhpValue = null | boolean | number | bigint | Buffer | PhpArray | PhpObject

export interface PhpArray {
  kind: 'array'
  entries: [Buffer | number | bigint, PhpValue][]
}

export interface PhpObject {
  kind: 'object'
  className: string
  /** Of `C:` with serialized content that content, of `O:` its properties. */
  content: PhpValue
}

/** Texts longer than this are not decoded: what we look for is never that long. */
const maxBytes = 16 * 1024 * 1024
const maxDepth = 200

/**
 * Reads serialized content, for looking at only. Only what scanSerialized calls whole is read, so the reader below may
 * trust lengths.
 *
 * @returns undefined when it is not whole, or too large or too deep to be looked at
 */
export function readPhp(bytes: Buffer): PhpValue | undefined {
  if (bytes.length > maxBytes || scanSerialized(bytes, { maxDepth }).kind !== 'whole') return undefined
  return read({ bytes, at: 0, depth: 0 })
}

interface Cursor {
  bytes: Buffer
  at: number
  depth: number
}

function read(cursor: Cursor): PhpValue {
  const type = String.fromCharCode(cursor.bytes[cursor.at] ?? 0)
  cursor.at += 2
  switch (type) {
    case 'b':
      return readScalar(cursor) === '1'
    case 'i':
      return toInteger(readScalar(cursor))
    case 'd':
      return Number(readScalar(cursor).replace('INF', 'Infinity'))
    case 's':
    case 'E': {
      const text = readText(cursor)
      cursor.at++
      return text
    }
    case 'a':
      return readArray(cursor)
    case 'O': {
      const className = readText(cursor).toString('latin1')
      cursor.at++
      return { kind: 'object', className, content: readArray(cursor) }
    }
    case 'C':
      return readCustom(cursor)
    case 'r':
    case 'R':
      readScalar(cursor)
      return null
    default:
      return null
  }
}

function readScalar(cursor: Cursor): string {
  const end = cursor.bytes.indexOf(0x3b, cursor.at)
  const text = cursor.bytes.toString('latin1', cursor.at, end)
  cursor.at = end + 1
  return text
}

const toInteger = (text: string): number | bigint => {
  const number = Number(text)
  return Number.isSafeInteger(number) ? number : BigInt(text)
}

/** Reads `<n>:`; the colon is passed. */
function readLength(cursor: Cursor): number {
  const end = cursor.bytes.indexOf(0x3a, cursor.at)
  const value = Number(cursor.bytes.toString('latin1', cursor.at, end))
  cursor.at = end + 1
  return value
}

function readText(cursor: Cursor): Buffer {
  const length = readLength(cursor)
  const text = cursor.bytes.subarray(cursor.at + 1, cursor.at + 1 + length)
  cursor.at += length + 2
  return text
}

function readArray(cursor: Cursor): PhpArray {
  const count = readLength(cursor)
  cursor.at++
  const entries: PhpArray['entries'] = []
  for (let index = 0; index < count; index++) {
    const key = read(cursor)
    const value = read(cursor)
    if (Buffer.isBuffer(key) || typeof key === 'number' || typeof key === 'bigint') entries.push([key, value])
  }
  cursor.at++
  return { kind: 'array', entries }
}

function readCustom(cursor: Cursor): PhpObject {
  const className = readText(cursor).toString('latin1')
  cursor.at++
  const length = readLength(cursor)
  const content = cursor.bytes.subarray(cursor.at + 1, cursor.at + 1 + length)
  cursor.at += length + 2
  if (cursor.depth >= 8) return { kind: 'object', className, content: null }
  const scan = scanSerialized(content, { maxDepth })
  const whole = scan.kind === 'whole' && scan.trailing === 0
  return {
    kind: 'object',
    className,
    content: whole ? read({ bytes: content, at: 0, depth: cursor.depth + 1 }) : null,
  }
}

export const isArray = (value: PhpValue | undefined): value is PhpArray =>
  typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'array'

export const isObject = (value: PhpValue | undefined): value is PhpObject =>
  typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'object'

/** The value of a key; undefined when the value is no array or has no such key. */
export function at(value: PhpValue | undefined, key: string | number): PhpValue | undefined {
  if (!isArray(value)) return undefined
  return value.entries.find(([each]) => (typeof key === 'number' ? each === key : keyName(each) === key))?.[1]
}

/** A key as text; bytes are read as Latin-1 so that nothing is lost. */
export const keyName = (key: Buffer | number | bigint): string =>
  Buffer.isBuffer(key) ? key.toString('latin1') : String(key)

/** A key as the bytes that it was made of: PHP turns the text "10042" into an integer key. */
export const keyBytes = (key: Buffer | number | bigint): Buffer =>
  Buffer.isBuffer(key) ? key : Buffer.from(String(key))

/** Serializes a key as PHP would: a text that is a canonical 64-bit integer becomes one. */
export function serializeKey(key: Buffer): Buffer {
  const text = key.toString('latin1')
  if (/^(?:0|-?[1-9]\d{0,18})$/.test(text) && BigInt.asIntN(64, BigInt(text)) === BigInt(text)) {
    return Buffer.from(`i:${text};`)
  }
  return Buffer.concat([Buffer.from(`s:${key.length}:"`), key, Buffer.from('";')])
}
