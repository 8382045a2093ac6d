import fc from 'fast-check'
import { expect, it } from 'vitest'
import { isId, newId } from '../../src/core/ids.ts'

const instant = fc.integer({ min: 0, max: 2 ** 48 - 1 })

it('are UUIDs of version 7 that tell their time', () => {
  fc.assert(
    fc.property(instant, (at) => {
      const id = newId(at)
      expect(isId(id)).toBe(true)
      expect(id[14]).toBe('7')
      expect('89ab').toContain(id[19])
      expect(Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)).toBe(at)
    }),
  )
})

it('stand in the order of their times, as texts too', () => {
  fc.assert(
    fc.property(fc.uniqueArray(instant, { maxLength: 50 }), (times) => {
      const ids = times.map(newId)
      const byTime = times.map((at, index) => ({ at, id: ids[index] })).sort((a, b) => a.at - b.at)
      expect([...ids].sort()).toEqual(byTime.map(({ id }) => id))
    }),
  )
})

it('are never the same, over the edge of a block of chance too', () => {
  const ids = Array.from({ length: 5_000 }, () => newId(1))
  expect(new Set(ids).size).toBe(ids.length)
})

it.each(['', 'x', newId(1).toUpperCase().replace('0', 'G'), `${newId(1)}0`, ` ${newId(1)}`, `${newId(1)}\n`])(
  'are not what %j is',
  (text) => {
    expect(isId(text)).toBe(false)
  },
)
