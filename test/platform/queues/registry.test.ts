import { Type } from 'typebox'
import { describe, expect, it } from 'vitest'
import { defineJob } from '../../../src/platform/queues/job.ts'
import { assertFits, createRegistry } from '../../../src/platform/queues/registry.ts'

const rows = Type.Object({
  rows: Type.Array(Type.Object({ name: Type.String(), 'a/b~c': Type.Optional(Type.Number()) })),
  kind: Type.Optional(Type.Union([Type.Literal('x'), Type.Object({ n: Type.Integer() })])),
})
const job = (name: string, payload = rows as ReturnType<typeof Type.Object>, queue = 'default') =>
  defineJob({ name, queue, payload, run: async () => undefined })

describe('a registry', () => {
  it('finds jobs by name and knows the queues', () => {
    const registry = createRegistry([job('a'), job('b', rows, 'slow'), job('c')])
    expect(registry.find('b')?.queue).toBe('slow')
    expect(registry.find('toString')).toBeUndefined()
    expect(registry.queues).toEqual(['default', 'slow'])
    expect(() => registry.get('d')).toThrow('There is no job named d.')
    expect(() => registry.validate('d', {})).toThrow('There is no job named d.')
  })

  it('refuses two jobs of one name', () => {
    expect(() => createRegistry([job('a'), job('a')])).toThrow(/Two jobs have the name a/)
  })

  it('refuses a schedule whose payload does not fit', () => {
    const definition = defineJob({
      name: 'nightly',
      payload: Type.Object({ n: Type.Number() }),
      schedule: { cron: '0 3 * * *', payload: { n: 'x' } as never },
      run: async () => undefined,
    })
    expect(() => createRegistry([definition])).toThrow('/schedule/payload/n must be a number')
  })
})

describe('a payload', () => {
  const registry = createRegistry([
    job('a'),
    job('strict', Type.Object({ n: Type.Number() }, { additionalProperties: false })),
  ])
  const validate = (payload: unknown, name = 'a') => registry.validate(name, payload)

  it('that fits has no fault, and what the schema does not name is let through', () => {
    expect(validate({ rows: [{ name: 'x', more: 1 }], other: true })).toEqual([])
  })

  it('tells every fault at once, by its path', () => {
    expect(validate({ rows: [{ name: 'x' }, {}, { name: 3, 'a/b~c': 'y' }], kind: { n: 1.5 } })).toEqual([
      { path: '/rows/1/name', message: 'is missing' },
      { path: '/rows/2/name', message: 'must be a string' },
      { path: '/rows/2/a~1b~0c', message: 'must be a number' },
      { path: '/kind', message: 'fits none of the forms that are allowed here' },
    ])
  })

  it('tells far more faults than TypeBox does by itself', () => {
    const many = { rows: Array.from({ length: 50 }, () => ({ name: 1 })) }
    expect(validate(many)).toHaveLength(50)
  })

  it.each([null, undefined, 3, 'text', []])('that is %j is no object', (payload) => {
    expect(validate(payload)).toEqual([{ path: '', message: 'must be an object' }])
  })

  it('may hold nothing else only where the schema says so', () => {
    expect(validate({ n: 1, extra: 1, 'x/y': 2 }, 'strict')).toEqual([
      { path: '/extra', message: 'is not known' },
      { path: '/x~1y', message: 'is not known' },
    ])
  })

  it('is turned into an error that bears the faults and no value', () => {
    expect(() => assertFits(validate({ rows: [{ name: 'secret' }, {}] }))).toThrow(
      'The input does not fit: /rows/1/name is missing.',
    )
    expect(() => assertFits([])).not.toThrow()
  })
})

describe('a checkpoint', () => {
  const walk = defineJob({
    name: 'walk',
    payload: Type.Object({}),
    checkpoint: Type.Object({ done: Type.Integer() }),
    run: async () => undefined,
  })
  const registry = createRegistry([walk])

  it('that is not there yet fits', () => {
    expect(registry.validateCheckpoint('walk', undefined)).toEqual([])
  })

  it('of an older shape does not', () => {
    expect(registry.validateCheckpoint('walk', { at: 1 })).toEqual([{ path: '/done', message: 'is missing' }])
  })
})
