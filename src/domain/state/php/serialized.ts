/**
 * A read-only scanner of PHP's serialize() format. It tells whole content from broken, and the class on top; it builds
 * no values. Written against hostile input: no recursion, a limit of depth, lengths checked before they are used.
 *
 * Grammar: PHP's ext/standard/var_unserializer.re.
 */
export type ScanResult =
  | { kind: 'whole'; className?: string; format?: 'C' | 'O'; trailing: number }
  | { kind: 'empty' }
  /** Begins as serialized content and ends too early. */
  | { kind: 'truncated' }
  /** Nothing but NUL bytes: what a file system leaves after a crash. */
  | { kind: 'nul' }
  /** Is not in this format. `at` is the offset of the first byte that does not fit. */
  | { kind: 'foreign'; at: number }

export interface ScanLimits {
  /** Deepest nesting; 4,096 unless said, the default of PHP's unserialize_max_depth. */
  maxDepth?: number
}

const cc = {
  a: 0x61,
  b: 0x62,
  d: 0x64,
  i: 0x69,
  s: 0x73,
  A_C: 0x43,
  A_E: 0x45,
  A_N: 0x4e,
  A_O: 0x4f,
  A_R: 0x52,
  r: 0x72,
  colon: 0x3a,
  semicolon: 0x3b,
  quote: 0x22,
  open: 0x7b,
  close: 0x7d,
} as const

/** Thrown within this file only. */
class Broken extends Error {
  readonly truncated: boolean
  readonly at: number
  constructor(truncated: boolean, at: number) {
    super('broken')
    this.truncated = truncated
    this.at = at
  }
}

const truncated = (at: number): Broken => new Broken(true, at)
const foreign = (at: number): Broken => new Broken(false, at)

export function scanSerialized(bytes: Buffer, limits: ScanLimits = {}): ScanResult {
  if (bytes.length === 0) return { kind: 'empty' }
  if (bytes[0] === 0 && bytes.every((byte) => byte === 0)) return { kind: 'nul' }
  try {
    const end = scanValue(bytes, 0, limits.maxDepth ?? 4_096)
    const top = topClass(bytes)
    return { kind: 'whole', trailing: bytes.length - end, ...top }
  } catch (error) {
    if (!(error instanceof Broken)) throw error
    return error.truncated ? { kind: 'truncated' } : { kind: 'foreign', at: error.at }
  }
}

/** Scans one value from `start` with a stack of "how many values are still to come". @returns where it ends */
function scanValue(bytes: Buffer, start: number, maxDepth: number): number {
  const pending: number[] = [1]
  let at = start
  while (pending.length > 0) {
    const left = pending.at(-1) ?? 0
    if (left === 0) {
      pending.pop()
      if (pending.length > 0) at = expect(bytes, at, cc.close)
      continue
    }
    pending[pending.length - 1] = left - 1
    const opened = scanHead(bytes, at)
    at = opened.end
    if (opened.children !== undefined) {
      if (pending.length >= maxDepth) throw foreign(at)
      pending.push(opened.children)
    }
  }
  return at
}

interface Head {
  end: number
  /** Values within the braces that were opened. */
  children?: number
}

function scanHead(bytes: Buffer, at: number): Head {
  const type = byteAt(bytes, at)
  switch (type) {
    case cc.A_N:
      return { end: expect(bytes, at + 1, cc.semicolon) }
    case cc.b:
    case cc.i:
    case cc.d:
    case cc.r:
    case cc.A_R:
      return { end: scanScalar(bytes, expect(bytes, at + 1, cc.colon), type) }
    case cc.s:
      return { end: expect(bytes, scanText(bytes, expect(bytes, at + 1, cc.colon)), cc.semicolon) }
    case cc.A_E:
      return { end: expect(bytes, scanText(bytes, expect(bytes, at + 1, cc.colon)), cc.semicolon) }
    case cc.a:
      return openList(bytes, expect(bytes, at + 1, cc.colon))
    case cc.A_O:
      return openList(bytes, expect(bytes, scanText(bytes, expect(bytes, at + 1, cc.colon)), cc.colon))
    case cc.A_C:
      return { end: scanCustom(bytes, at) }
    default:
      throw foreign(at)
  }
}

/** `<count>:{`, after which come count keys and count values. */
function openList(bytes: Buffer, at: number): Head {
  const count = readLength(bytes, at)
  // Each of them takes two bytes at least, so a larger count cannot be true.
  if (count.value > bytes.length) throw truncated(bytes.length)
  return { end: expect(bytes, expect(bytes, count.end, cc.colon), cc.open), children: count.value * 2 }
}

/** `C:<n>:"<class>":<bytes>:{…}`: the content is the class's own affair, Z-Push's is again serialized. */
function scanCustom(bytes: Buffer, at: number): number {
  const named = expect(bytes, scanText(bytes, expect(bytes, at + 1, cc.colon)), cc.colon)
  const length = readLength(bytes, named)
  const open = expect(bytes, expect(bytes, length.end, cc.colon), cc.open)
  if (open + length.value >= bytes.length) throw truncated(bytes.length)
  return expect(bytes, open + length.value, cc.close)
}

/** `<n>:"<n bytes>"` */
function scanText(bytes: Buffer, at: number): number {
  const length = readLength(bytes, at)
  const open = expect(bytes, expect(bytes, length.end, cc.colon), cc.quote)
  if (open + length.value >= bytes.length) throw truncated(bytes.length)
  return expect(bytes, open + length.value, cc.quote)
}

const isDigit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39

function readLength(bytes: Buffer, at: number): { value: number; end: number } {
  let value = 0
  let end = at
  while (isDigit(byteAt(bytes, end))) {
    value = value * 10 + (bytes[end] ?? 0) - 0x30
    if (value > 0x7fff_ffff) throw foreign(at)
    end++
  }
  if (end === at) throw foreign(at)
  return { value, end }
}

const scalarPatterns: Record<number, RegExp> = {
  [cc.b]: /^[01]$/,
  [cc.i]: /^[+-]?\d{1,20}$/,
  [cc.d]: /^(?:-?INF|NAN|[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)$/,
  [cc.r]: /^\d{1,10}$/,
  [cc.A_R]: /^\d{1,10}$/,
}

function scanScalar(bytes: Buffer, at: number, type: number): number {
  const end = bytes.indexOf(cc.semicolon, at)
  // No number is longer; further away the semicolon belongs to something else.
  if (end < 0 || end - at > 64) {
    if (bytes.length - at <= 64 && /^[\d.+\-eEINFA]*$/.test(bytes.toString('latin1', at))) throw truncated(at)
    throw foreign(at)
  }
  if (!scalarPatterns[type]?.test(bytes.toString('latin1', at, end))) throw foreign(at)
  return end + 1
}

function byteAt(bytes: Buffer, at: number): number {
  const byte = bytes[at]
  if (byte === undefined) throw truncated(at)
  return byte
}

function expect(bytes: Buffer, at: number, byte: number): number {
  if (byteAt(bytes, at) !== byte) throw foreign(at)
  return at + 1
}

function topClass(bytes: Buffer): { className?: string; format?: 'C' | 'O' } {
  const match = /^([CO]):\d+:"([^"]*)"/.exec(bytes.toString('latin1', 0, 256))
  return match ? { format: match[1] === 'C' ? 'C' : 'O', className: match[2] ?? '' } : {}
}
