import { describe, expect, it } from 'vitest'
import type { BatonError } from '../../../src/core/errors.ts'
import { readJson } from '../../../src/runtime/web/json-body.ts'

const read = (text: string): unknown => readJson(Buffer.from(text))

function refusal(work: () => unknown): BatonError {
  try {
    work()
  } catch (error) {
    return error as BatonError
  }
  throw new Error('it was taken')
}

describe('readJson', () => {
  it.each(['null', '0', '""', '[]', '{"a":[1,2.5,-3e2,true,null,"x"]}', '{"a":9007199254740991}', '[1e22]'])(
    'takes %s as it is',
    (text) => expect(read(text)).toEqual(JSON.parse(text)),
  )

  it('takes a byte order mark, NUL and lone surrogates as escapes', () => {
    expect(read('\ufeff{"a":1}')).toEqual({ a: 1 })
    expect(read('["a\\u0000b","\\ud800"]')).toEqual(['a\0b', '\ud800'])
  })

  it('counts the last of two equal keys', () => {
    expect(read('{"a":1,"a":2}')).toEqual({ a: 2 })
  })

  it.each(['', '{', '{"a":}', '[1,]', "{'a':1}", '{"a":1}{"b":2}', 'NaN', 'undefined', '{"a":01}'])(
    'refuses %j',
    (text) => expect(refusal(() => read(text)).code).toBe('BODY_MALFORMED'),
  )

  it('shows no piece of what it refuses', () => {
    for (const text of ['{"secret" 1}', '["secret",]', 'secret', '{"a":"secret']) {
      expect(refusal(() => read(text)).message).not.toContain('secret')
    }
  })

  it('refuses what is not UTF-8', () => {
    expect(refusal(() => readJson(Buffer.from([0x22, 0xff, 0xfe, 0x22]))).message).toContain('UTF-8')
    expect(refusal(() => readJson(Buffer.from([0x22, 0xc0, 0x80, 0x22]))).code).toBe('BODY_MALFORMED')
    expect(refusal(() => readJson(Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]))).code).toBe('BODY_MALFORMED')
  })

  it('refuses __proto__ as a key, wherever it stands, by its path', () => {
    expect(refusal(() => read('{"a":[{"__proto__":{"x":1}}],"\\u005f_proto__":1}')).faults).toEqual([
      { path: '/a/0/__proto__', message: 'must not be used as a key' },
      { path: '/__proto__', message: 'must not be used as a key' },
    ])
  })

  it('refuses nesting beyond 64 levels, and a bomb of half a million', () => {
    const nested = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels)
    expect(read(nested(64))).toBeDefined()
    for (const levels of [65, 10_000, 500_000]) {
      expect(refusal(() => read(nested(levels))).faults?.[0]?.message).toContain('64 levels')
    }
    expect(refusal(() => read('{"a":'.repeat(10_000) + '1' + '}'.repeat(10_000))).faults).toHaveLength(1)
  })

  it('refuses numbers that would arrive as others', () => {
    expect(refusal(() => read('{"a":1e999,"b":[-1e400]}')).faults?.map((fault) => fault.path)).toEqual([
      '/a',
      '/b/0',
    ])
    expect(refusal(() => read('{"a/b":{"c":9007199254740993},"d":1}')).faults).toEqual([
      { path: '/a~1b/c', message: 'must be sent as a string: a double cannot hold it' },
    ])
    expect(read('{"a":9007199254740992,"b":100000000000000000000}')).toEqual({ a: 2 ** 53, b: 1e20 })
  })
})
