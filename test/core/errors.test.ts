import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BatonError, codeOf, defineError, messageOf } from '../../src/core/errors.ts'

const LOST = defineError('LOST', '{what} was lost at {place}; {what} again.', {
  status: 404,
  retry: 'never',
  report: false,
})

describe('an error kind', () => {
  it('makes errors with its code, its traits and the values in its text', () => {
    const cause = new Error('below')
    const faults = [{ path: '/a', message: 'is missing' }]
    const error = LOST({ what: 'it', place: 7 }, { cause, faults, retryAfterMs: 5 })
    expect(error).toBeInstanceOf(BatonError)
    expect(error).toMatchObject({ name: 'LOST', code: 'LOST', cause, faults, retryAfterMs: 5 })
    expect(error.message).toBe('it was lost at 7; it again.')
    expect(error.traits).toEqual({ status: 404, retry: 'never', report: false })
  })

  it('leaves a gap that nobody filled, and puts values in as they are', () => {
    expect(LOST().message).toBe('{what} was lost at {place}; {what} again.')
    expect(LOST({ what: '$& {place}', place: '' }).message).toBe('$& {place} was lost at ; $& {place} again.')
  })

  it('knows its own', () => {
    const OTHER = defineError('OTHER', 'x', LOST.traits)
    expect([LOST.is(LOST()), LOST.is(OTHER()), LOST.is({ code: 'LOST' }), LOST.is(undefined)]).toEqual([
      true,
      false,
      false,
      false,
    ])
  })
})

describe('messageOf and codeOf', () => {
  it('give a text for whatever was thrown', () => {
    fc.assert(
      fc.property(fc.anything({ withNullPrototype: true, withBigInt: true, withDate: true }), (thrown) => {
        expect(typeof messageOf(thrown)).toBe('string')
        expect(['string', 'undefined']).toContain(typeof codeOf(thrown))
      }),
    )
    expect(messageOf(Symbol('x'))).toBe('Symbol(x)')
    expect(messageOf(Object.create(null))).not.toBe('')
    expect(messageOf(Object.assign(new Error(), { message: { odd: true } }))).toBe('[object Object]')
    const hostile = Object.defineProperty(new Error(), 'message', {
      get: () => {
        throw new Error('no')
      },
    })
    expect(messageOf(hostile)).toBe('something was thrown that cannot be shown')
  })

  it('tell of every attempt of a connection to several addresses', () => {
    const both = new AggregateError([new Error('no v6'), 'no v4'])
    expect(messageOf(both)).toBe('no v6; no v4')
    expect(messageOf(new AggregateError([new Error('x')], 'all failed'))).toBe('all failed')
    expect(codeOf(Object.assign(new Error(), { code: 'ECONNREFUSED' }))).toBe('ECONNREFUSED')
    expect(codeOf({ code: 7 })).toBeUndefined()
  })
})
