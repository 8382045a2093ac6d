import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bucketOf, type StateKey } from '../../../src/domain/state/state-key.ts'
import { formatFileName, parseFileName } from '../../../src/domain/state/stores/file/name.ts'

const uuid = '0a83c974-eadb-46b3-bba4-9426879e0042'
const counter = fc.integer({ min: 1, max: 3_000_000_000 })
const key: fc.Arbitrary<StateKey> = fc.oneof(
  fc.constant<StateKey>({ type: 'devicedata', uuid: '', counter: 0 }),
  fc.uuid().map((id): StateKey => ({ type: 'fd', uuid: id, counter: 0 })),
  counter.map((count): StateKey => ({ type: 'bs', uuid: '', counter: count })),
  fc
    .tuple(fc.constantFrom<StateKey['type']>('', 'fs', 'hc', 'bs'), fc.uuid(), counter)
    .map(([type, id, count]): StateKey => ({ type, uuid: id, counter: count })),
)
/** Names that are one character away from a state's, as often as not. */
const nearly =
  /^[a-zA-Z0-9]{1,5}-(([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})-)?(fd|hc|bs|devicedata)?-?[0-9]{0,4}$/
const device = fc.stringMatching(/^[a-z0-9]{2,40}$/)

describe('names of state files', () => {
  it('come back as the device and key that they were made of', () => {
    fc.assert(
      fc.property(device, key, (id, each) => {
        expect(parseFileName(formatFileName(id, each))).toEqual({ kind: 'state', device: id, key: each })
      }),
    )
  })

  it('are states only where Z-Push would have written them', () => {
    expect.hasAssertions()
    fc.assert(
      fc.property(fc.oneof(fc.string({ maxLength: 80 }), fc.stringMatching(nearly)), (name) => {
        const parsed = parseFileName(name)
        const spelled = parsed.kind === 'state' ? formatFileName(parsed.device, parsed.key) : name
        expect(spelled).toBe(name)
      }),
      { numRuns: 2_000 },
    )
  })

  it.each([
    [`dev1-${uuid}-007`, 'counter-leading-zero'],
    [`dev1-${uuid}-0`, 'counter-zero'],
    [`dev1-${uuid}`, 'uuid-without-counter'],
    [`dev1-${uuid}-xx-5`, 'unknown-type-xx'],
    [`dev1-${uuid}-fd.bak`, 'unknown-name-bak'],
    [`dev1-${uuid}-fd-3`, 'unknown-name-foo'],
    [`dev1-${uuid}-hc`, 'unknown-name-foo'],
    ['dev1-foo', 'unknown-name-foo'],
    ['dev1-a\nb', 'unknown-name-bak'],
    [`DEV1-${uuid}-7`, 'upper-case-device'],
    [`dev1-${uuid}-99999999999999999999`, 'counter-too-large'],
    ['README', 'foreign-files'],
    ['.nfs00001', 'foreign-files'],
    [`tmp-4711-dev1-${uuid}-92`, 'leftover-tmp'],
  ])('names the trouble of %j', (name, code) => {
    expect(parseFileName(name)).toMatchObject({ code })
  })

  it('lie in folders of the last two characters', () => {
    expect(bucketOf('androidc1612583833')).toBe('3/3')
    expect(bucketOf('ab')).toBe('b/a')
  })
})
