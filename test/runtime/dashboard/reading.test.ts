import { describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { DATABASE_UNAVAILABLE } from '../../../src/platform/postgres/errors.ts'
import { read, shared } from '../../../src/runtime/dashboard/reading.ts'

function heldClock() {
  let ms = 0
  return { ...createSystemClock(), monotonicMs: () => ms, move: (by: number) => void (ms += by) }
}

describe('a look that is shared', () => {
  it('serves all who come while it is under way, and for a while after', async () => {
    const clock = heldClock()
    let looks = 0
    const look = shared(clock, 1_000, async () => ++looks)
    expect(await Promise.all([look(), look(), look()])).toEqual([1, 1, 1])
    clock.move(999)
    expect(await look()).toBe(1)
    clock.move(1)
    expect(await look()).toBe(2)
  })

  it('is shared for ten times as long as it took, at most for 10 s', async () => {
    const clock = heldClock()
    let takes = 400
    let looks = 0
    const look = shared(clock, 1_000, async () => {
      clock.move(takes)
      return ++looks
    })
    await look()
    clock.move(3_999)
    expect(await look()).toBe(1)
    clock.move(1)
    takes = 60_000
    expect(await look()).toBe(2)
    clock.move(9_999)
    expect(await look()).toBe(2)
    clock.move(1)
    expect(await look()).toBe(3)
  })

  it('is done anew after one that failed', async () => {
    const clock = heldClock()
    let looks = 0
    const look = shared(clock, 1_000, async () => {
      if (++looks === 1) throw new Error('away')
      return looks
    })
    await expect(look()).rejects.toThrow('away')
    clock.move(1_000)
    expect(await look()).toBe(2)
  })
})

describe('a reading', () => {
  it('tells what was read and when, or with which code it failed, but not the words of a driver', async () => {
    const clock = { ...createSystemClock(), now: () => 0 }
    const readAt = '1970-01-01T00:00:00.000Z'
    expect(await read(clock, async () => 0)).toEqual({ ok: true, value: 0, readAt })
    const away = async (): Promise<never> => {
      throw DATABASE_UNAVAILABLE({ reason: 'connect ECONNREFUSED 10.0.0.1' })
    }
    expect(await read(clock, away)).toEqual({ ok: false, code: 'DATABASE_UNAVAILABLE', readAt })
  })
})
