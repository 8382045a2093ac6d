import { type TSchema, Type } from 'typebox'
import { describe, expect, expectTypeOf, it } from 'vitest'
import type { BatonError } from '../../../src/core/errors.ts'
import { cancel, defineJob, done, type JobOptions, snooze } from '../../../src/platform/queues/job.ts'
import { createRegistry, type DepsOf } from '../../../src/platform/queues/registry.ts'

interface Bodies {
  read(id: string): AsyncIterable<Record<string, string>>
}
interface Mail {
  send(to: string): Promise<void>
}

/** As short as the contract shows it: what a user writes has to type-check without an annotation more. */
const report = defineJob({
  name: 'report',
  queue: 'default',
  payload: Type.Object({ body: Type.String(), column: Type.String() }),
  attempts: 5,
  timeoutMs: 600_000,
  async run({ body, column }, { bodies }: { bodies: Bodies }, ctx) {
    const counts = new Map<string, number>(ctx.checkpoint?.counts)
    for await (const row of ctx.iterate(bodies.read(body), { save: () => ({ counts: [...counts] }) }))
      counts.set(row[column] ?? '', (counts.get(row[column] ?? '') ?? 0) + 1)
    return done(Object.fromEntries(counts))
  },
})

const welcome = defineJob({
  name: 'welcome',
  payload: Type.Object({ to: Type.String() }),
  checkpoint: Type.Object({ sent: Type.Number() }),
  async run({ to }, { mail }: { mail: Mail }, ctx) {
    expectTypeOf(ctx.checkpoint).toEqualTypeOf<{ sent: number } | undefined>()
    for await (const n of ctx.iterate((from) => [from?.sent ?? 0, 1], { save: (last) => ({ sent: last }) })) {
      expectTypeOf(n).toEqualTypeOf<number>()
      await mail.send(to)
    }
  },
})

const plain = defineJob({ name: 'plain', payload: Type.Object({}), run: async () => snooze(5) })

const faultsOf = (options: object): string[] => {
  try {
    const fine = { name: 'x', payload: Type.Object({}), run: async () => undefined }
    defineJob({ ...fine, ...options } as JobOptions<TSchema, unknown>)
    return []
  } catch (error) {
    return ((error as BatonError).faults ?? []).map((fault) => fault.path)
  }
}

describe('defineJob', () => {
  it('fills in what is not said', () => {
    expect(plain).toMatchObject({
      queue: 'default',
      attempts: 3,
      timeoutMs: 600_000,
      durable: true,
      backoff: { baseMs: 1_000, maxMs: 600_000 },
    })
    expect(plain.schedule).toBeUndefined()
    expect(plain.dedupe).toBeUndefined()
  })

  it('gives the handlers what all of them need, as a type', () => {
    expectTypeOf<DepsOf<[typeof report, typeof welcome, typeof plain]>>().toEqualTypeOf<
      { bodies: Bodies } & { mail: Mail }
    >()
    expectTypeOf(createRegistry([plain]).needs).toEqualTypeOf<((deps: unknown) => void) | undefined>()
    expect(createRegistry([report, welcome, plain]).queues).toEqual(['default'])
  })

  it.each(['', '123', 'a:b', '-a', 'a b', 'ä', `a${'b'.repeat(100)}`])('refuses the name %j', (name) => {
    expect(faultsOf({ name })).toEqual(['/name'])
    expect(faultsOf({ queue: name })).toEqual(['/queue'])
  })

  it.each(['a', 'mail.send', 'sendMail', 'a-1_b'])('takes the name %j', (name) => {
    expect(faultsOf({ name, queue: name })).toEqual([])
  })

  it.each([
    ['/attempts', { attempts: 0 }],
    ['/attempts', { attempts: 1.5 }],
    ['/timeoutMs', { timeoutMs: 0 }],
    ['/timeoutMs', { timeoutMs: Number.NaN }],
    ['/timeoutMs', { timeoutMs: 8 * 86_400_000 }],
    ['/backoff', { backoff: { baseMs: 10, maxMs: 5 } }],
    ['/backoff', { backoff: { baseMs: 1, maxMs: 5, factor: 0.5 } }],
    ['/payload', { payload: undefined as never }],
    ['/dedupe', { durable: false, dedupe: () => 'key' }],
    ['/schedule', { durable: false, schedule: { cron: '* * * * *', payload: {} } }],
    ['/schedule/cron', { schedule: { cron: '* * * *', payload: {} } }],
    ['/schedule/timeZone', { schedule: { cron: '* * * * *', timeZone: 'Mars/Base', payload: {} } }],
  ])('refuses a fault in %s', (path, options) => {
    expect(faultsOf(options)).toEqual([path])
  })

  it('tells all faults of a definition at once, with its name', () => {
    expect(() =>
      defineJob({ name: 'bad name', queue: '1', attempts: 0, payload: Type.Object({}), run: async () => {} }),
    ).toThrow(/bad name.*\/name .*; \/queue .*; \/attempts /)
  })
})

describe('a cron expression', () => {
  const cronFaults = (cron: string): string[] => faultsOf({ schedule: { cron, payload: {} } })

  it.each(['* * * * *', '*/5 0-6,12 1,15 JAN-mar mon-fri', '0 0 29 2 7', '5/10 * * * 0'])(
    'is understood: %s',
    (cron) => expect(cronFaults(cron)).toEqual([]),
  )

  it.each([
    '60 * * * *',
    '* 24 * * *',
    '* * 0 * *',
    '* * * 13 *',
    '* * * * 8',
    '5-1 * * * *',
    '*/0 * * * *',
    'x * * * *',
    '@daily',
    '* * * * * *',
  ])('is refused: %s', (cron) => expect(cronFaults(cron)).toEqual(['/schedule/cron']))
})

describe('an outcome', () => {
  it('is a value', () => {
    expect(done()).toEqual({ kind: 'done' })
    expect(done(0)).toEqual({ kind: 'done', result: 0 })
    expect(cancel('why')).toEqual({ kind: 'cancel', reason: 'why' })
  })
})
