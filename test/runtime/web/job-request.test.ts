import { Type } from 'typebox'
import { describe, expect, it } from 'vitest'
import type { BatonError } from '../../../src/core/errors.ts'
import { defineJob } from '../../../src/platform/queues/job.ts'
import { createRegistry } from '../../../src/platform/queues/registry.ts'
import { createJobRequestReader } from '../../../src/runtime/web/job-request.ts'

const now = Date.parse('2026-01-01T00:00:00Z')
const mail = defineJob({
  name: 'mail',
  payload: Type.Object(
    { to: Type.String(), copies: Type.Optional(Type.Integer()) },
    { additionalProperties: false },
  ),
  run: async () => undefined,
})
const ping = defineJob({ name: 'ping', payload: Type.Object({}), durable: false, run: async () => undefined })
const reader = createJobRequestReader(createRegistry([mail, ping]))

function refusal(body: unknown): { code: string; paths: string[] } {
  try {
    reader.read(body, now)
  } catch (error) {
    const { code, faults } = error as BatonError
    return { code, paths: (faults ?? []).map((fault) => fault.path) }
  }
  throw new Error('it was taken')
}

describe('job requests', () => {
  const good = { name: 'mail', payload: { to: 'a' } }

  it('are read one by one or as an array', () => {
    expect(reader.read(good, now)).toEqual([
      { job: expect.objectContaining({ name: 'mail' }), payload: { to: 'a' }, durable: true, priority: 0 },
    ])
    expect(reader.read([good, { name: 'ping', payload: {} }], now).map((each) => each.durable)).toEqual([
      true,
      false,
    ])
  })

  it('tell every fault of every job at once, by its path', () => {
    const body = [
      good,
      { name: 'mail', payload: { to: 1, copies: 1.5, bcc: 'x' }, delayMs: -1, color: 'red' },
      { name: 'mail' },
      'mail',
    ]
    const { code, paths } = refusal(body)
    expect(code).toBe('INPUT_INVALID')
    expect(paths.sort()).toEqual(
      [
        '/1/color',
        '/1/delayMs',
        '/1/payload/bcc',
        '/1/payload/copies',
        '/1/payload/to',
        '/2/payload',
        '/3',
      ].sort(),
    )
  })

  it('with a name that nobody defined are not found, unless something else is wrong too', () => {
    expect(refusal({ name: 'nope', payload: {} })).toEqual({ code: 'JOB_UNKNOWN', paths: ['/name'] })
    expect(refusal([good, { name: 'constructor', payload: {} }])).toEqual({
      code: 'JOB_UNKNOWN',
      paths: ['/1/name'],
    })
    expect(
      refusal([
        { name: 'nope', payload: {} },
        { name: 'mail', payload: {} },
      ]).code,
    ).toBe('INPUT_INVALID')
  })

  it.each([
    [[]],
    [Array.from({ length: 1_001 }, () => good)],
    [null],
    ['x'],
    [7],
    [{}],
    [{ name: '', payload: {} }],
    [{ name: 7, payload: {} }],
  ])('are refused when they have no proper form (%#)', (body) =>
    expect(refusal(body).code).toBe('INPUT_INVALID'),
  )

  it.each([
    { delayMs: 1.5 },
    { delayMs: 1e15 },
    { priority: -1 },
    { priority: 2_097_152 },
    { dedupeKey: '' },
    { dedupeKey: 'x'.repeat(501) },
    { durable: 'no' },
    { runAt: 'tomorrow' },
    { runAt: '2026-01-01' },
    { runAt: '2026-13-01T00:00:00Z' },
    { runAt: '9999-01-01T00:00:00Z' },
    { runAt: -1 },
    { runAt: {} },
    { runAt: now, delayMs: 5 },
    { durable: false, dedupeKey: 'k' },
  ])('are refused with %o', (extra) => expect(refusal({ ...good, ...extra }).code).toBe('INPUT_INVALID'))

  it('take an instant as text or number, also one that has passed', () => {
    const at = (runAt: unknown): number | undefined => reader.read({ ...good, runAt }, now)[0]?.runAt
    expect(at('2026-02-01T00:00:00+01:00')).toBe(Date.parse('2026-01-31T23:00:00Z'))
    expect(at(now + 5)).toBe(now + 5)
    expect(at('1999-01-01T00:00:00Z')).toBe(Date.parse('1999-01-01T00:00:00Z'))
    expect(reader.read({ ...good, delayMs: 7, dedupeKey: 'k', priority: 3 }, now)[0]).toMatchObject({
      delayMs: 7,
      dedupeKey: 'k',
      priority: 3,
    })
  })
})
