import { describe, expect, it } from 'vitest'
import type { ActiveRun, Settled, Stop } from '../../../src/platform/queues/active-run.ts'
import { JOB_FAILED, JOB_INTERRUPTED, QUEUE_UNAVAILABLE } from '../../../src/platform/queues/errors.ts'
import { cancel, done, snooze } from '../../../src/platform/queues/job.ts'
import { toJobError } from '../../../src/platform/queues/job-error.ts'
import { createProgress } from '../../../src/platform/queues/progress.ts'
import { judge } from '../../../src/platform/queues/settlement.ts'

const job = { backoff: { baseMs: 100, maxMs: 1_000 } }
const stop = (kind: Stop['kind']): Stop => ({ kind, error: JOB_INTERRUPTED({ reason: 'x' }), atMs: 0 })
const run = (more: Partial<ActiveRun> = {}) => ({
  stop: undefined,
  committed: false,
  attempt: 1,
  maxAttempts: 3,
  interruptions: 0,
  outage: undefined,
  ...more,
})
const nothing: Settled = { kind: 'returned', value: undefined }
const returned = (value: unknown): Settled => ({ kind: 'returned', value })
const threw = (error: unknown): Settled => ({ kind: 'threw', error })

describe('the end of a handler', () => {
  it.each<[string, Settled, object]>([
    ['nothing', nothing, { kind: 'completed', result: undefined }],
    ['a result', returned(done({ a: 1 })), { kind: 'completed', result: { a: 1 } }],
    ['a snooze', returned(snooze(5)), { kind: 'snooze', delayMs: 5 }],
    ['a cancel', returned(cancel('why')), { kind: 'cancelled', reason: 'why' }],
    ['a throw', threw(new Error('x')), { kind: 'retry', error: { code: 'JOB_FAILED', message: 'x' } }],
    ['a snooze of a fraction', returned(snooze(4.2)), { kind: 'snooze', delayMs: 5 }],
    ['a snooze until never', returned(snooze(Number.POSITIVE_INFINITY)), { kind: 'failed' }],
    ['a snooze into the past', returned(snooze(-1)), { kind: 'failed' }],
    ['null', returned(null), { kind: 'failed', error: { code: 'JOB_OUTCOME_INVALID' } }],
  ])('that is %s', (_what, settled, verdict) => {
    expect(judge(run(), job, settled)).toMatchObject(verdict)
  })

  it.each<[Stop['kind'], string]>([
    ['timeout', 'retry'],
    ['cancel', 'cancelled'],
    ['interrupt', 'interrupted'],
    ['lost', 'lost'],
  ])('after a %s is %s, unless the handler says an outcome', (kind, verdict) => {
    for (const settled of [nothing, threw(new Error('x')), { kind: 'abandoned' } as const]) {
      expect(judge(run({ stop: stop(kind) }), job, settled).kind).toBe(verdict)
    }
    const explicit = judge(run({ stop: stop(kind) }), job, returned(done(1))).kind
    expect(explicit).toBe(kind === 'lost' ? 'lost' : 'completed')
  })

  it('uses no attempt when Postgres was away under a write of its own, but not for ever', () => {
    const outage = new Error('away')
    const kindOf = (more: Partial<ActiveRun>, error: unknown) =>
      judge(run({ attempt: 3, ...more }), job, threw(error)).kind
    expect(kindOf({ outage }, outage)).toBe('interrupted')
    expect(kindOf({ outage, interruptions: 10 }, outage)).toBe('failed')
    expect(kindOf({ outage }, new Error('another'))).toBe('failed')
    expect(kindOf({}, outage)).toBe('failed')
  })

  it('is what once has committed, whatever came after', () => {
    for (const settled of [nothing, threw(new Error('x')), { kind: 'abandoned' } as const]) {
      expect(judge(run({ committed: true, stop: stop('lost') }), job, settled)).toEqual({ kind: 'committed' })
    }
  })

  it('waits as long as the error says, and at least its back-off', () => {
    const delayOf = (error: unknown, attempt = 1) => {
      const verdict = judge(run({ attempt }), job, threw(error))
      return verdict.kind === 'retry' ? verdict.delayMs : undefined
    }
    expect(delayOf(QUEUE_UNAVAILABLE({}, { retryAfterMs: 5_000 }))).toBe(5_000)
    expect(delayOf(new Error('x'))).toBeGreaterThanOrEqual(50)
    expect(delayOf(new Error('x'), 2)).toBeGreaterThanOrEqual(100)
    expect(delayOf(new Error('x'), 3)).toBeUndefined()
    expect(delayOf(JOB_FAILED({ reason: 'x' }))).toBeLessThanOrEqual(100)
  })
})

describe('an error as it is shown', () => {
  it('is bounded, whatever was thrown', () => {
    const long = toJobError(new Error('x'.repeat(100_000)))
    expect(long.message.length).toBeLessThan(2_100)
    expect(long.stack?.length).toBeLessThan(8_100)
    expect(toJobError(Symbol('s')).message).toBe('Not an error was thrown, but Symbol(s).')
    const spiteful = { toJSON: () => never() }
    expect(toJobError(spiteful).message).toBe('Something was thrown that cannot be shown.')
  })
})

const never = (): never => {
  throw new Error('no')
}

describe('progress', () => {
  it('writes one at a time, the newest, and the last at the end', async () => {
    const written: unknown[] = []
    let release: () => void = () => undefined
    const progress = createProgress((value) => {
      written.push(value)
      return new Promise((resolve) => {
        release = resolve
      })
    })
    progress.set(1, 0)
    progress.set(2, 300)
    progress.set(3, 600)
    expect(written).toEqual([1])
    release()
    await Promise.resolve()
    await Promise.resolve()
    await Promise.resolve()
    progress.flush(700)
    expect(written).toEqual([1, 3])
    progress.set(4, 701)
    const finished = progress.finish()
    release()
    await Promise.resolve().then(() => undefined)
    while (written.length < 3) await new Promise((resolve) => setImmediate(resolve))
    release()
    await finished
    expect(written).toEqual([1, 3, 4])
  })
})
