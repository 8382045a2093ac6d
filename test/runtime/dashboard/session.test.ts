import { describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { addressOf, createLogInLimit } from '../../../src/runtime/dashboard/log-in-limit.ts'
import { createSessions } from '../../../src/runtime/dashboard/session.ts'

const system = createSystemClock()
function heldClock() {
  let ms = 1_000_000
  return { ...system, now: () => ms, monotonicMs: () => ms, move: (by: number) => void (ms += by) }
}
const ann = { owner: 'key-1', name: 'ann', role: 'viewer' } as const

describe('a session', () => {
  const clock = heldClock()
  const sessions = createSessions({ secret: 'one secret of many', clock })

  it('is read back from its cookie, also by another process with the same secret', () => {
    const { cookie, session } = sessions.begin(ann, 'hash')
    expect(createSessions({ secret: 'one secret of many', clock }).read(cookie)).toEqual(session)
    expect(session).toMatchObject({ ...ann, keySha256: 'hash' })
  })

  it('is not read from a cookie that was changed, cut, or signed with another secret', () => {
    const { cookie } = sessions.begin(ann, 'hash')
    const [text = '', signature = ''] = cookie.split('.')
    const operator = Buffer.from(
      Buffer.from(text, 'base64url').toString().replace('viewer', 'operator'),
    ).toString('base64url')
    expect(sessions.read(`${operator}.${signature}`)).toBeUndefined()
    for (const bad of [undefined, '', '.', text, `${text}.`, `${text}.x`, `.${signature}`])
      expect(sessions.read(bad)).toBeUndefined()
    expect(createSessions({ secret: 'another secret', clock }).read(cookie)).toBeUndefined()
  })

  it('ends by itself after twelve hours', () => {
    const { cookie } = sessions.begin(ann, 'hash')
    clock.move(12 * 3_600_000 - 1)
    expect(sessions.read(cookie)).toBeDefined()
    clock.move(1)
    expect(sessions.read(cookie)).toBeUndefined()
  })

  it('gives its forms a token that no other session has, and that no cookie is', () => {
    const [one, other] = [sessions.begin(ann, 'hash').session.id, sessions.begin(ann, 'hash').session.id]
    expect(sessions.isFormToken(one, sessions.formToken(one))).toBe(true)
    expect(sessions.isFormToken(other, sessions.formToken(one))).toBe(false)
    expect(sessions.isFormToken(one, undefined)).toBe(false)
    const { cookie } = sessions.begin(ann, 'hash')
    const [text = '', signature = ''] = cookie.split('.')
    expect(sessions.isFormToken(text, signature)).toBe(false)
  })
})

describe('the limit of log-ins', () => {
  it('grants five wrong keys at once and one more each 12 s, to each address for itself', () => {
    const clock = heldClock()
    const limit = createLogInLimit(clock)
    const fail = (address: string): void => {
      limit.assertRoom(address)
      limit.noteFailure(address)
    }
    for (let count = 0; count < 5; count++) fail('a')
    expect(() => fail('a')).toThrow(
      expect.objectContaining({ code: 'LOG_IN_THROTTLED', retryAfterMs: 12_000 }),
    )
    expect(() => fail('b')).not.toThrow()
    clock.move(12_000)
    expect(() => fail('a')).not.toThrow()
    expect(() => fail('a')).toThrow('Too many attempts')
  })

  it('does not forget whom it holds off when nine thousand addresses more come', () => {
    const limit = createLogInLimit(heldClock())
    for (let count = 0; count < 5; count++) limit.noteFailure('a')
    for (let index = 0; index < 9_000; index++) limit.noteFailure(`other ${index}`)
    expect(() => limit.assertRoom('a')).toThrow('Too many attempts')
  })

  it('takes the address from X-Forwarded-For only behind a router, and only what the router added', () => {
    expect(addressOf('10.1.2.3', '6.6.6.6, 198.51.100.7')).toBe('198.51.100.7')
    expect(addressOf('::ffff:10.1.2.3', ['6.6.6.6', '198.51.100.7'])).toBe('198.51.100.7')
    expect(addressOf('203.0.113.9', '198.51.100.7')).toBe('203.0.113.9')
    expect(addressOf('10.1.2.3', undefined)).toBe('10.1.2.3')
  })

  it('counts the addresses of one IPv6 network as one', () => {
    const networks = ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::9', '2001:db8:1:2:ffff::'].map((each) =>
      addressOf(each, undefined),
    )
    expect(new Set(networks)).toEqual(new Set(['2001:db8:1:2::/64']))
    expect(addressOf('2001:db8::1', undefined)).toBe('2001:db8:0:0::/64')
    expect(addressOf('2001:db8:1:3::9', undefined)).not.toBe(networks[0])
  })
})
