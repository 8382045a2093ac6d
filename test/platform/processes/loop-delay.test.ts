import { expect, test } from 'vitest'
import { watchLoopDelay } from '../../../src/platform/processes/loop-delay.ts'
import { eventually } from '../../support/processes.ts'

test('a blocked loop is seen for ten seconds at least, and then forgotten', async () => {
  let nowMs = 0
  const clock = { now: () => nowMs, monotonicMs: () => nowMs, sleep: async () => undefined }
  const delay = watchLoopDelay(clock)
  await new Promise((resolve) => setTimeout(resolve, 50))
  const until = performance.now() + 400
  while (performance.now() < until) JSON.stringify(nowMs)
  await eventually(() => expect(delay.peakMs()).toBeGreaterThan(300))
  expect(delay.peakMs()).toBeLessThan(10_000)
  nowMs = 10_000
  expect(delay.peakMs()).toBeGreaterThan(300)
  nowMs = 19_000
  expect(delay.peakMs()).toBeGreaterThan(300)
  nowMs = 20_000
  delay.peakMs()
  expect(delay.peakMs()).toBeLessThan(300)
})
