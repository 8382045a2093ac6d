import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createPositions, readCursor } from '../../../src/domain/push/cursor.ts'
import { createDeviceTokens } from '../../../src/domain/push/device-token.ts'
import { CURSOR_INVALID } from '../../../src/domain/push/errors.ts'
import { nameFault } from '../../../src/domain/push/names.ts'
import { retryAfterMs } from '../../../src/domain/push/sender/retry-after.ts'
import { shardOf } from '../../../src/domain/push/shard.ts'

const names = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 50 })

describe('a cursor', () => {
  it('gives back the position of every device', () => {
    fc.assert(
      fc.property(
        fc.dictionary(names, fc.nat({ max: 2 ** 47 }), { minKeys: 1, maxKeys: 40, noNullPrototype: true }),
        (wanted) => {
          const devices = Object.keys(wanted)
          const positions = createPositions(devices)
          for (const device of devices) positions.set(device, wanted[device] ?? 0)
          expect(Object.fromEntries(readCursor(positions.cursor(), devices))).toEqual(wanted)
        },
      ),
    )
  })

  it('is refused when it is anything else, and never breaks the reader', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 200 }), (text) => {
        expect(() => readCursor(text, ['phone'])).toThrow(
          expect.objectContaining({ code: CURSOR_INVALID.code }),
        )
      }),
    )
  })
})

describe('a device token', () => {
  const tokens = createDeviceTokens('a secret of the tests')

  it('names its device and registration, whatever the characters', () => {
    fc.assert(
      fc.property(names, fc.nat(), (device, generation) => {
        const holder = { device, generation: String(generation) }
        expect(tokens.read(tokens.issue(holder))).toEqual(holder)
      }),
    )
  })

  it('is worth nothing with another secret, or with any character changed', () => {
    const token = tokens.issue({ device: 'phone', generation: '7' })
    expect(createDeviceTokens('another secret').read(token)).toBeUndefined()
    // All but the last character: two bits of it do not count.
    for (let at = 0; at < token.length - 1; at += 1) {
      const changed = `${token.slice(0, at)}${token[at] === 'A' ? 'B' : 'A'}${token.slice(at + 1)}`
      expect(tokens.read(changed)).toBeUndefined()
    }
  })
})

it('spreads devices evenly over the shards, the same way for ever', () => {
  expect(shardOf('phone')).toBe(25)
  const counts = Array<number>(64).fill(0)
  for (let n = 0; n < 64_000; n += 1)
    counts[shardOf(`device-${n}`)] = (counts[shardOf(`device-${n}`)] ?? 0) + 1
  expect(Math.min(...counts)).toBeGreaterThan(800)
  expect(Math.max(...counts)).toBeLessThan(1_200)
})

it('takes names of any characters but controls and broken ones', () => {
  for (const good of ['a', 'a b', '日本', '<b>', 'x'.repeat(200)])
    expect(nameFault('/x', good)).toBeUndefined()
  for (const bad of ['', '.', '..', 'a\u0000b', 'a\nb', '\ud800', 'x'.repeat(201)]) {
    expect(nameFault('/x', bad)).toMatchObject({ path: '/x' })
  }
})

it('reads Retry-After in both forms, by the clock of who answered', () => {
  const now = Date.parse('2026-01-01T00:00:00Z')
  expect(retryAfterMs({ 'retry-after': '120' }, now)).toBe(120_000)
  expect(retryAfterMs({ 'retry-after': 'Thu, 01 Jan 2026 00:01:00 GMT' }, now)).toBe(60_000)
  const skewed = { 'retry-after': 'Thu, 01 Jan 2026 10:01:00 GMT', date: 'Thu, 01 Jan 2026 10:00:00 GMT' }
  expect(retryAfterMs(skewed, now)).toBe(60_000)
  expect(retryAfterMs({ 'retry-after': 'Thu, 01 Jan 2025 00:00:00 GMT' }, now)).toBe(0)
  expect(retryAfterMs({ 'retry-after': 'soon' }, now)).toBeUndefined()
  expect(retryAfterMs({}, now)).toBeUndefined()
})
