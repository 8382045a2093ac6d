import type { IncomingMessage } from 'node:http'
import { expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createLog } from '../../../src/platform/log.ts'
import { createMetrics } from '../../../src/platform/metrics.ts'
import { createLease } from '../../../src/runtime/gateway/lease.ts'
import { createPins } from '../../../src/runtime/gateway/pin.ts'
import { createPinning } from '../../../src/runtime/gateway/pinning.ts'
import type { Target } from '../../../src/runtime/gateway/target.ts'

const clock = createSystemClock()
const pins = createPins({ secret: 'a-secret-of-sixteen-characters', clock })
const make = (who: 'browsers' | 'all') =>
  createPinning({ pins, who, metrics: createMetrics(), log: createLog({ level: 'silent', process: 'test' }) })

const targetOf = (id: string): Target =>
  ({ id, revision: `revision of ${id}`, lease: createLease({ clock, idleMs: 60_000 }) }) as Target
const message = (headers: Record<string, string> = {}): IncomingMessage =>
  ({ headers }) as unknown as IncomingMessage
/** The answer's added headers, Set-Cookie without its attributes. */
const namesOf = (headers: string[]): string[] => headers.filter((_text, index) => index % 2 === 0)

it('pins programs only where all are pinned', () => {
  const visit = { request: message(), place: { target: targetOf('a') }, pin: undefined, secure: false }
  expect(make('browsers').headersFor(visit, message())).toEqual([])
  expect(namesOf(make('all').headersFor(visit, message()))).toEqual(['Set-Cookie'])
  // From then on it is known.
  expect(visit.place.target.lease.sessions).toBe(1)
})

it('leaves a pin alone that is right, and moves one that is not with its session', () => {
  const pinning = make('browsers')
  const { pin } = pins.issue({ target: 'a', revision: 'old' }, false)
  const [here, there] = [targetOf('a'), targetOf('b')]
  expect(
    pinning.headersFor({ request: message(), place: { target: here }, pin, secure: false }, message()),
  ).toEqual([])

  const place = { target: there, movedFrom: 'old' }
  const headers = pinning.headersFor({ request: message(), place, pin, secure: true }, message())
  expect(namesOf(headers)).toEqual(['Set-Cookie', 'X-Session-Moved'])
  expect(headers[3]).toBe('old')
  expect(headers[1]).toMatch(/; Secure$/)
  expect(pins.read(headers[1]?.split(';')[0])).toMatchObject({
    session: pin.session,
    target: 'b',
    revision: 'revision of b',
  })
  expect(there.lease.sessions).toBe(1)
})

it('believes a target that says that a session is over, and asks nothing of who has none', () => {
  const pinning = make('all')
  const target = targetOf('a')
  const { pin } = pins.issue({ target: 'a', revision: 'old' }, false)
  target.lease.seen(pin.session)
  const over = message({ 'x-session-ended': '1' })
  const visit = { request: message(), place: { target }, pin, secure: false }
  expect(pinning.headersFor(visit, over)[1]).toContain('Max-Age=0')
  expect(target.lease.empty).toBe(true)
  expect(pinning.headersFor({ ...visit, pin: undefined }, over)).toEqual([])
})
