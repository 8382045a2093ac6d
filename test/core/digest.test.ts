import fc from 'fast-check'
import { expect, it } from 'vitest'
import { sameSecret, sha256 } from '../../src/core/digest.ts'

it('is the sha256 of text and of bytes', () => {
  const abc = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
  expect([sha256('abc'), sha256(Buffer.from('abc'))]).toEqual([abc, abc])
})

it('takes secrets for the same only when they are, whatever their lengths', () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), (a, b) => {
      expect(sameSecret(a, b)).toBe(a === b)
      expect(sameSecret(a, a)).toBe(true)
    }),
  )
})
