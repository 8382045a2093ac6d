import fc from 'fast-check'
import { expect, it } from 'vitest'
import { backoffMs } from '../../src/core/backoff.ts'

const options = fc.record({
  baseMs: fc.integer({ min: 0, max: 1e6 }),
  maxMs: fc.integer({ min: 0, max: 1e9 }),
  factor: fc.double({ min: 1, max: 10, noNaN: true }),
})
const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })

it('lies between half and the whole of the exponential delay, and never beyond the longest', () => {
  fc.assert(
    fc.property(options, fc.integer({ min: 1, max: 5_000 }), chance, (given, retry, random) => {
      const whole = given.baseMs === 0 ? 0 : Math.min(given.maxMs, given.baseMs * given.factor ** (retry - 1))
      const ms = backoffMs(retry, given, () => random)
      expect(ms).toBeGreaterThanOrEqual(Math.floor(whole / 2))
      expect(ms).toBeLessThanOrEqual(Math.ceil(whole))
      expect(Number.isInteger(ms)).toBe(true)
    }),
  )
})

it('never shrinks from one retry to the next, by the same chance', () => {
  fc.assert(
    fc.property(options, fc.integer({ min: 1, max: 1_000 }), chance, (given, retry, random) => {
      const at = (n: number): number => backoffMs(n, given, () => random)
      expect(at(retry + 1)).toBeGreaterThanOrEqual(at(retry))
    }),
  )
})

it('doubles unless told otherwise, and takes a retry before the first for the first', () => {
  const latest = { baseMs: 100, maxMs: 10_000 }
  const most = (retry: number): number => backoffMs(retry, latest, () => 1)
  expect([0, 1, 2, 3, 8, 1e6].map(most)).toEqual([100, 100, 200, 400, 10_000, 10_000])
  expect(backoffMs(1, latest, () => 0)).toBe(50)
  expect(backoffMs(2_000, { baseMs: 0, maxMs: 10 }, () => 0.5)).toBe(0)
})
