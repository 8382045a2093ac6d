import { expect, it } from 'vitest'
import type { Clock } from '../../../src/core/clock.ts'
import { createLog } from '../../../src/platform/log.ts'
import { createLease } from '../../../src/runtime/gateway/lease.ts'
import { createRetirement } from '../../../src/runtime/gateway/retirement.ts'
import type { Roster } from '../../../src/runtime/gateway/roster.ts'
import type { Target } from '../../../src/runtime/gateway/target.ts'

const idleMs = 1_000

function start(limits: { maxAgeMs?: number; detachedMax?: number } = {}) {
  let now = 1_000_000
  const clock: Clock = { now: () => now, monotonicMs: () => now, sleep: async () => undefined }
  const targets: Target[] = []
  const retirement = createRetirement({
    roster: { targets, save: () => undefined, remove: () => undefined } as unknown as Roster,
    // They drain for ever: what is asked here is which.
    ending: {
      closeSpread: () => undefined,
      empty: () => new Promise(() => undefined),
      end: async () => true,
    },
    clock,
    log: createLog({ level: 'silent', process: 'test' }),
    limits: { maxAgeMs: 60_000, detachedMax: 3, killAfterMs: 1_000, ...limits },
  })
  const add = (revision: string): Target => {
    const target = { revision, state: 'current', lease: createLease({ clock, idleMs }) } as Target
    targets.push(target)
    retirement.detach(target)
    now++
    return target
  }
  const look = (afterMs = 0): string[] => {
    now += afterMs
    retirement.look()
    return targets.map(({ state }) => state)
  }
  return { add, look, retirement }
}

it('drains what nobody holds, and nothing that somebody does', () => {
  const { add, look } = start()
  const [session, request, stream] = [add('a'), add('b'), add('c')]
  session.lease.seen('s')
  const answered = request.lease.begin()
  stream.lease.hold({ pinned: true, close: () => undefined })
  expect(look()).toEqual(['detached', 'detached', 'detached'])
  answered()
  expect(look()).toEqual(['detached', 'draining', 'detached'])
  expect(look(idleMs)).toEqual(['draining', 'draining', 'detached'])
})

it('keeps for whoever it does not know, until they are idle', () => {
  const { add, look } = start()
  add('a').lease.forget()
  expect(look(idleMs - 10)).toEqual(['detached'])
  expect(look(10)).toEqual(['draining'])
})

it('drains what is too old whoever holds it, later when it was extended', () => {
  const { add, look, retirement } = start({ maxAgeMs: 5_000 })
  for (const target of [add('a'), add('b')]) {
    target.lease.begin()
    if (target.revision === 'b') retirement.extend(target, 3_000)
  }
  expect(look(4_900)).toEqual(['detached', 'detached'])
  expect(look(100)).toEqual(['draining', 'detached'])
  expect(look(2_900)).toEqual(['draining', 'detached'])
  expect(look(100)).toEqual(['draining', 'draining'])
})

it('drains the oldest when there are too many', () => {
  const { add, look } = start({ detachedMax: 2 })
  for (const revision of ['a', 'b', 'c', 'd']) add(revision).lease.begin()
  expect(look()).toEqual(['draining', 'draining', 'detached', 'detached'])
})
