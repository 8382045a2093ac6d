import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { sha256 } from '../../../src/core/digest.ts'
import { claimFor, isClaim, isLarge, redeem } from '../../../src/platform/queues/payload-claim.ts'
import type { PayloadStore } from '../../../src/platform/queues/payload-store.ts'

function createShelf(): PayloadStore & { kept: Map<string, string>; full: boolean } {
  const kept = new Map<string, string>()
  return {
    kept,
    full: false,
    async store(json) {
      if (this.full) return undefined
      kept.set(sha256(json), json)
      return sha256(json)
    },
    load: async (reference) => kept.get(reference) ?? '',
  }
}

/** What goes into a row, and what a run makes of it. */
async function roundTrip(payload: unknown, shelf = createShelf()): Promise<{ row: string; given: unknown }> {
  const json = JSON.stringify(payload)
  const row = isLarge(json) ? await claimFor(json, shelf) : json
  const stored = JSON.parse(row) as unknown
  return { row, given: isClaim(stored) ? await redeem(stored, shelf) : stored }
}

const id = 'ab'.repeat(32)

describe('the claim on a payload', () => {
  it('gives every payload back as it was, whatever it looks like', async () => {
    const lookAlike = fc.record(
      {
        'baton:payload': fc.oneof(fc.constant(id), fc.jsonValue()),
        bytes: fc.jsonValue(),
        names: fc.jsonValue(),
      },
      { requiredKeys: [] },
    )
    const long = fc.string({ minLength: 5_000, maxLength: 40_000, unit: 'binary' })
    const payload = fc.oneof(
      fc.jsonValue(),
      lookAlike,
      fc.array(lookAlike),
      long,
      fc.record({ long, lookAlike }),
    )
    await fc.assert(
      fc.asyncProperty(payload, async (value) => {
        const { given } = await roundTrip(value)
        expect(JSON.stringify(given)).toBe(JSON.stringify(value))
      }),
      { numRuns: 500 },
    )
  })

  it.each([
    ['characters of one byte', 'x', 16_382, 16_383],
    ['characters of three bytes', '語', 5_460, 5_461],
  ])('begins beyond 16 KiB, in %s', (_what, character, short, long) => {
    expect(isLarge(JSON.stringify(character.repeat(short)))).toBe(false)
    expect(isLarge(JSON.stringify(character.repeat(long)))).toBe(true)
  })

  it('leaves a short row, which names the bodies that the payload speaks of', async () => {
    const { row } = await roundTrip({
      body: id,
      more: [{ deep: `\b${'cd'.repeat(32)}` }],
      text: 'x'.repeat(100_000),
    })
    expect(row.length).toBeLessThan(400)
    expect(row).toContain(id)
    expect(row).toContain('cd'.repeat(32))
  })

  it('is not made of a payload that names many bodies: a sweep finds them in the row', async () => {
    const ids = Array.from({ length: 300 }, (_each, n) => sha256(String(n)))
    expect((await roundTrip(ids)).row).toBe(JSON.stringify(ids))
  })

  it('is not made while the store cannot take it', async () => {
    const shelf = createShelf()
    shelf.full = true
    expect((await roundTrip('x'.repeat(20_000), shelf)).row).toHaveLength(20_002)
    await expect(roundTrip({ 'baton:payload': id }, shelf)).rejects.toMatchObject({
      code: 'PAYLOAD_UNAVAILABLE',
    })
  })

  it('is refused when another text comes back, and waits where there is no store', async () => {
    const shelf = createShelf()
    const claim = JSON.parse(await claimFor(JSON.stringify('x'.repeat(20_000)), shelf)) as never
    for (const key of shelf.kept.keys()) shelf.kept.set(key, '"another"')
    await expect(redeem(claim, shelf)).rejects.toMatchObject({ code: 'PAYLOAD_LOST' })
    await expect(redeem(claim, undefined)).rejects.toMatchObject({
      code: 'PAYLOAD_UNAVAILABLE',
      traits: { retry: 'after' },
    })
    await expect(redeem({ 'baton:payload': '../x', bytes: 1 }, shelf)).rejects.toMatchObject({
      code: 'PAYLOAD_LOST',
    })
  })
})
