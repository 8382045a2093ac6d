import fc from 'fast-check'
import { expect, test } from 'vitest'
import { hasten, planStop } from '../../../src/platform/processes/stop-plan.ts'

const shutdownMs = fc.integer({ min: 1_000, max: 86_400_000 })

test('with 25 s the phases end 9, 5, 1.2 and 0.8 s before the deadline', () => {
  expect(planStop(25_000)).toEqual({ interruptMs: 16_000, killMs: 20_000, hooksMs: 23_800, exitMs: 24_200 })
})

test('with more time only the drain is longer', () => {
  expect(planStop(60_000)).toEqual({ interruptMs: 51_000, killMs: 55_000, hooksMs: 58_800, exitMs: 59_200 })
})

test('whatever the deadline, the phases follow each other and end before it', () => {
  fc.assert(
    fc.property(shutdownMs, (ms) => {
      const { interruptMs, killMs, hooksMs, exitMs } = planStop(ms)
      expect(0 < interruptMs && interruptMs < killMs && killMs < hooksMs).toBe(true)
      expect(hooksMs < exitMs && exitMs < ms).toBe(true)
    }),
  )
})

test('a fast stop interrupts now, and never ends later than it would have', () => {
  fc.assert(
    fc.property(shutdownMs, fc.integer({ min: 0, max: 90_000_000 }), (ms, elapsedMs) => {
      const plan = planStop(ms)
      const fast = hasten(plan, elapsedMs)
      expect(fast.interruptMs).toBe(Math.min(plan.interruptMs, elapsedMs))
      expect(fast.exitMs).toBeLessThanOrEqual(plan.exitMs)
      expect(fast.killMs - fast.interruptMs).toBeCloseTo(plan.killMs - plan.interruptMs)
    }),
  )
})
