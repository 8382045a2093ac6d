import fc from 'fast-check'
import { expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createPins, pinCookie } from '../../../src/runtime/gateway/pin.ts'

const clock = createSystemClock()
const pins = createPins({ secret: 'a-secret-of-sixteen-characters', clock })
const place = { target: 't1-abc', revision: 'one' }
const cookieOf = (header: string): string => header.split(';')[0] ?? ''

it('gives back what was signed, among other cookies too', () => {
  const { pin, header } = pins.issue(place, false)
  expect(pins.read(`a=b; ${cookieOf(header)}; c=d`)).toEqual(pin)
  expect(pin).toMatchObject(place)
  expect(Math.abs(pin.startedAt - clock.now())).toBeLessThan(5_000)
})

it('keeps a session that is given, and makes each new one at random', () => {
  const first = pins.issue(place, false).pin.session
  expect(pins.issue({ ...place, session: first }, false).pin.session).toBe(first)
  expect(pins.issue(place, false).pin.session).not.toBe(first)
})

it('is hidden from scripts and other sites, and sent by https alone when it came by https', () => {
  expect(pins.issue(place, false).header).toMatch(/; Path=\/; HttpOnly; SameSite=Lax$/)
  expect(pins.issue(place, true).header).toMatch(/; HttpOnly; SameSite=Lax; Secure$/)
})

it('does not believe a pin in which any character was changed', () => {
  const value = cookieOf(pins.issue(place, false).header).slice(pinCookie.length + 1)
  fc.assert(
    fc.property(
      fc.nat(value.length - 2),
      fc.constantFrom('A', 'Z', 'a', 'z', '0', '9', '-', '_', '.'),
      (at, character) => {
        fc.pre(value[at] !== character)
        const forged = value.slice(0, at) + character + value.slice(at + 1)
        expect(pins.read(`${pinCookie}=${forged}`)).toBeUndefined()
      },
    ),
  )
})

it('does not believe what was signed with another secret, or has no signature, or is nothing at all', () => {
  const other = createPins({ secret: 'another-secret-of-many-letters', clock })
  const text = Buffer.from(JSON.stringify(place)).toString('base64url')
  for (const cookie of [
    cookieOf(other.issue(place, false).header),
    `${pinCookie}=${text}`,
    `${pinCookie}=${text}.`,
    `${pinCookie}=.`,
    `${pinCookie}=`,
    `x${cookieOf(pins.issue(place, false).header)}`,
  ]) {
    expect({ cookie, pin: pins.read(cookie) }).toEqual({ cookie, pin: undefined })
  }
  expect(pins.read(undefined)).toBeUndefined()
})

it('finds its own behind one that it does not believe', () => {
  const { pin, header } = pins.issue(place, false)
  expect(pins.read(`${pinCookie}=forged.x; ${cookieOf(header)}`)).toEqual(pin)
})

it('takes itself out of what targets are sent', () => {
  const own = cookieOf(pins.issue(place, false).header)
  expect(pins.strip(own)).toBeUndefined()
  expect(pins.strip(`a=b; ${own}; c=d`)).toBe('a=b; c=d')
  expect(pins.strip('a=b')).toBe('a=b')
})
