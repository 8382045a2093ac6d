import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readUsersOf } from '../../../src/domain/state/inspect/phone.ts'
import { scanSerialized } from '../../../src/domain/state/php/serialized.ts'
import {
  isArray,
  keyBytes,
  type PhpValue,
  readPhp,
  serializeKey,
} from '../../../src/domain/state/php/value.ts'

/** What PHP's serialize() would write of arbitrary values. */
const text = fc
  .uint8Array({ maxLength: 40 })
  .map((bytes) => Buffer.concat([Buffer.from(`s:${bytes.length}:"`), bytes, Buffer.from('";')]))
const scalar = fc.oneof(
  fc.constant(Buffer.from('N;')),
  fc.boolean().map((value) => Buffer.from(`b:${value ? 1 : 0};`)),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map((value) => Buffer.from(`i:${value};`)),
  fc.double({ noDefaultInfinity: true, noNaN: true }).map((value) => Buffer.from(`d:${value};`)),
  fc.constantFrom('d:INF;', 'd:-INF;', 'd:NAN;', 'd:1.0E+25;', 'd:-0;').map((value) => Buffer.from(value)),
  text,
)
const { value: serialized } = fc.letrec<{ value: Buffer }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    scalar,
    fc
      .array(
        fc.tuple(
          fc.oneof(
            text,
            fc.nat().map((key) => Buffer.from(`i:${key};`)),
          ),
          tie('value'),
        ),
        { maxLength: 5 },
      )
      .map((entries) =>
        Buffer.concat([Buffer.from(`a:${entries.length}:{`), ...entries.flat(), Buffer.from('}')]),
      ),
    fc
      .array(tie('value'), { maxLength: 4 })
      .map((values) =>
        Buffer.concat([
          Buffer.from(`O:3:"Foo":${values.length}:{`),
          ...values.flatMap((value, index) => [Buffer.from(`i:${index};`), value]),
          Buffer.from('}'),
        ]),
      ),
    tie('value').map((value) =>
      Buffer.concat([Buffer.from(`C:11:"StateObject":${value.length}:{`), value, Buffer.from('}')]),
    ),
  ),
}))

describe('the scanner of serialized content', () => {
  it('calls whole what PHP writes, to its last byte', () => {
    fc.assert(
      fc.property(serialized, (bytes) => {
        expect(scanSerialized(bytes)).toMatchObject({ kind: 'whole', trailing: 0 })
      }),
      { numRuns: 500 },
    )
  })

  it('calls every true beginning of it truncated, but where that is whole by itself', () => {
    fc.assert(
      fc.property(serialized, fc.nat(), (bytes, cut) => {
        const part = bytes.subarray(0, cut % bytes.length)
        const { kind } = scanSerialized(part)
        expect(kind).toBe(part.length === 0 ? 'empty' : 'truncated')
      }),
      { numRuns: 500 },
    )
  })

  it('tells how much follows the end', () => {
    fc.assert(
      fc.property(serialized, fc.uint8Array({ minLength: 1, maxLength: 9 }), (bytes, more) => {
        expect(scanSerialized(Buffer.concat([bytes, more]))).toMatchObject({
          kind: 'whole',
          trailing: more.length,
        })
      }),
    )
  })

  it('never throws, whatever it is given, and reads only what it calls whole', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const { kind } = scanSerialized(Buffer.from(bytes))
        expect(readPhp(Buffer.from(bytes)) === undefined).toBe(kind !== 'whole')
      }),
      { numRuns: 2_000 },
    )
    fc.assert(
      fc.property(serialized, fc.nat(), fc.nat(255), (bytes, at, byte) => {
        const broken = Buffer.from(bytes)
        broken[at % broken.length] = byte
        scanSerialized(broken)
        readUsersOf(readPhp(broken))
      }),
      { numRuns: 2_000 },
    )
  })

  it.each([
    ['a count that lies', 'a:999999999:{', 'truncated'],
    ['a length that lies', 's:999999999:"a";', 'truncated'],
    ['a length beyond any', 's:99999999999999999999:"a";', 'foreign'],
    ['another format', '{"json": true}', 'foreign'],
    ['a number that is none', 'i:abc;', 'foreign'],
    ['a boolean that is none', 'b:7;', 'foreign'],
    ['NUL bytes', '\0\0\0\0', 'nul'],
    ['nothing', '', 'empty'],
    ['a brace too few', 'a:1:{i:0;i:1;', 'truncated'],
    ['a key that is missing', 'a:1:{}', 'foreign'],
  ])('sees %s', (_what, bytes, kind) => {
    expect(scanSerialized(Buffer.from(bytes)).kind).toBe(kind)
  })

  it('stands nesting without a stack of its own, up to PHP’s limit and not beyond', () => {
    const nested = (depth: number): Buffer =>
      Buffer.from('a:1:{i:0;'.repeat(depth) + 'N;' + '}'.repeat(depth))
    expect(scanSerialized(nested(4_000)).kind).toBe('whole')
    expect(scanSerialized(nested(100_000)).kind).toBe('foreign')
    expect(readPhp(nested(1_000))).toBeUndefined()
  })

  it('reads keys as PHP makes them: canonical integers become numbers, and everything comes back', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 20 }),
          fc.bigInt().map((value) => Buffer.from(String(value))),
        ),
        (key) => {
          const written = Buffer.concat([
            Buffer.from('a:1:{'),
            serializeKey(Buffer.from(key)),
            Buffer.from('i:1;}'),
          ])
          const value = readPhp(written) as PhpValue
          expect(isArray(value) && keyBytes(value.entries[0]?.[0] ?? 0).equals(Buffer.from(key))).toBe(true)
        },
      ),
    )
    const spelled = (key: string): string => serializeKey(Buffer.from(key)).toString()
    expect(['10042', '-5', '0'].map(spelled)).toEqual(['i:10042;', 'i:-5;', 'i:0;'])
    expect(['007', '-0', '9223372036854775808', '1e3', ''].map((key) => spelled(key)[0])).toEqual([
      's',
      's',
      's',
      's',
      's',
    ])
    expect(spelled('9223372036854775807')).toBe('i:9223372036854775807;')
  })
})
