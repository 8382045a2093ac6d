import { expect, it } from 'vitest'
import type { Clock } from '../../../src/core/clock.ts'
import { createLease } from '../../../src/runtime/gateway/lease.ts'

function turnable(): Clock & { turn(ms: number): void } {
  let now = 0
  return {
    now: () => now,
    monotonicMs: () => now,
    sleep: async () => undefined,
    turn: (ms) => void (now += ms),
  }
}

it('is held by requests and streams, each until its end, which counts once', () => {
  const lease = createLease({ clock: turnable(), idleMs: 100 })
  const end = lease.begin()
  lease.begin()
  end()
  end()
  expect(lease.inFlight).toBe(1)
  const close = lease.hold({ pinned: true, close: () => undefined })
  expect(lease.streams).toHaveLength(1)
  close()
  expect(lease.streams).toEqual([])
  expect(lease.empty).toBe(false)
})

it('is held by a session until it was silent for the idle time, or is over', () => {
  const clock = turnable()
  const lease = createLease({ clock, idleMs: 100 })
  lease.seen('a')
  lease.seen('b')
  clock.turn(99)
  lease.seen('a')
  clock.turn(1)
  expect(lease.sessions).toBe(1)
  lease.ended('a')
  expect(lease.empty).toBe(true)
})

it('is held by whoever is not known, for as long as they may be silent', () => {
  const clock = turnable()
  const lease = createLease({ clock, idleMs: 100 })
  lease.forget()
  clock.turn(99)
  expect(lease.empty).toBe(false)
  expect(lease.unknownUntilMs).toBe(100)
  clock.turn(1)
  expect(lease.empty).toBe(true)
})

it('counts no more sessions than it has room for, and keeps for those that it did not count', () => {
  const clock = turnable()
  const lease = createLease({ clock, idleMs: 100, mostSessions: 2 })
  for (const session of ['a', 'b', 'c']) lease.seen(session)
  expect(lease.sessions).toBe(2)
  lease.ended('a')
  lease.ended('b')
  expect(lease.empty).toBe(false)
  clock.turn(100)
  expect(lease.empty).toBe(true)
})
