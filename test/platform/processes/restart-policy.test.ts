import { expect, test } from 'vitest'
import { createRestartPolicy } from '../../../src/platform/processes/restart-policy.ts'

const longest = () => 1

test('a child that was healthy is replaced at once, and so are the first three that died young', () => {
  const policy = createRestartPolicy(longest)
  expect([60_000, 100, 100, 100].map((upForMs) => policy.afterDeath(upForMs))).toEqual([0, 0, 0, 0])
})

test('jobs that end their process again and again slow a slot down to five seconds, not more', () => {
  const policy = createRestartPolicy(longest)
  const delays = Array.from({ length: 8 }, () => policy.afterDeath(100))
  expect(delays).toEqual([0, 0, 0, 1_000, 2_000, 4_000, 5_000, 5_000])
})

test('a boot that fails again and again slows down from one second to sixty', () => {
  const policy = createRestartPolicy(longest)
  const delays = Array.from({ length: 8 }, () => policy.afterDeath(undefined))
  expect(delays).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000])
})

test('children that are never up wait from the first on', () => {
  const policy = createRestartPolicy(longest)
  expect([1, 2, 3].map(() => policy.afterDeath(undefined))).toEqual([1_000, 2_000, 4_000])
  expect(policy.failedBoots).toBe(3)
})

test('one that was healthy ends the crash loop', () => {
  const policy = createRestartPolicy(longest)
  for (let death = 0; death < 6; death++) policy.afterDeath(100)
  expect(policy.failures).toBe(6)
  expect(policy.afterDeath(5_000)).toBe(0)
  expect(policy.failures).toBe(0)
})
