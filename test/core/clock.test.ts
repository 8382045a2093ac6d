import { expect, it } from 'vitest'
import { createSystemClock, toIso } from '../../src/core/clock.ts'

const clock = createSystemClock()

it('tells the wall time, and a time that never runs back', () => {
  expect(Math.abs(clock.now() - Date.now())).toBeLessThan(1_000)
  const times = Array.from({ length: 100 }, () => clock.monotonicMs())
  expect(times).toEqual([...times].sort((a, b) => a - b))
  expect(toIso(0)).toBe('1970-01-01T00:00:00.000Z')
})

it('sleeps as long as it was told, and no longer than its signal lets it', async () => {
  const began = clock.monotonicMs()
  await clock.sleep(30)
  expect(clock.monotonicMs() - began).toBeGreaterThanOrEqual(28)
  await clock.sleep(-5)
  const stop = new AbortController()
  const sleeping = clock.sleep(60_000, stop.signal)
  stop.abort()
  await sleeping
  await clock.sleep(60_000, stop.signal)
  expect(clock.monotonicMs() - began).toBeLessThan(10_000)
})
