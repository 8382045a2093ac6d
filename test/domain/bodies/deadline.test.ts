import { expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createDeadline } from '../../../src/domain/bodies/deadline.ts'
import { BODY_TIMEOUT } from '../../../src/domain/bodies/errors.ts'

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

it('ends each wait at its own time, however many there are, and tells what comes late', async () => {
  const deadline = createDeadline('a', 200, createSystemClock())
  const late: string[] = []
  const hanging = Promise.withResolvers<string>()
  const first = deadline.within(hanging.promise, (result) => late.push(result))
  const begunAt = performance.now()
  await sleep(100)
  const second = deadline.within(new Promise(() => undefined))
  expect(await deadline.within(Promise.resolve('at once'))).toBe('at once')
  await expect(deadline.within(Promise.reject(new Error('broken')))).rejects.toThrow('broken')
  await expect(first).rejects.toSatisfy(BODY_TIMEOUT.is)
  expect(performance.now() - begunAt).toBeGreaterThan(190)
  await expect(second).rejects.toSatisfy(BODY_TIMEOUT.is)
  expect(performance.now() - begunAt).toBeGreaterThan(290)
  hanging.resolve('after all')
  await sleep(0)
  expect(late).toEqual(['after all'])
  // The watch has ended with the last wait, and begins again with the next.
  await expect(deadline.within(new Promise(() => undefined))).rejects.toSatisfy(BODY_TIMEOUT.is)
})

it('leaves no timer behind when nobody waits', async () => {
  let asleep = 0
  const clock = {
    ...createSystemClock(),
    sleep: async (ms: number, signal?: AbortSignal) => {
      asleep += 1
      await createSystemClock().sleep(ms, signal)
      asleep -= 1
    },
  }
  const deadline = createDeadline('a', 60_000, clock)
  await Promise.all(Array.from({ length: 50 }, (_each, index) => deadline.within(sleep(index % 7))))
  await sleep(0)
  expect(asleep).toBe(0)
})
