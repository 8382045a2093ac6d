import { describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createLog } from '../../../src/platform/log.ts'
import type { ConsumeOptions, Delivery, QueueBackend } from '../../../src/platform/queues/backend.ts'
import type { Job } from '../../../src/platform/queues/job.ts'
import { done } from '../../../src/platform/queues/job.ts'
import { createJobRunner } from '../../../src/platform/queues/job-runner.ts'
import { createRegistry } from '../../../src/platform/queues/registry.ts'
import { eventually } from '../../support/processes.ts'
import { createGate, jobOf } from './harness.ts'

/** Deliveries by hand: what an engine does only under duress (stalls, lost locks) is said here in so many words. */
function createEngine(
  job: Job<never, never>,
  options: { start?: () => Promise<void>; limits?: object } = {},
) {
  let consume: ConsumeOptions | undefined
  const backend = {
    consume: (given: ConsumeOptions) => {
      consume = given
      return {
        start: options.start ?? (async () => undefined),
        quiet: () => undefined,
        resume: () => undefined,
        active: () => ['stuck'],
        close: () => new Promise<void>(() => undefined),
      }
    },
  } as unknown as QueueBackend
  const none = () => undefined
  const runner = createJobRunner({
    registry: createRegistry([job as Job]),
    ledger: {} as never,
    backend,
    database: {} as never,
    deps: undefined,
    log: createLog({ level: 'silent', process: 'test' }),
    clock: createSystemClock(),
    metrics: { started: none, finished: none, interrupted: none, leftBehind: none },
    wakeBus: {
      publish: async () => undefined,
      subscribe: () => Promise.reject(new Error('away')),
      onRestored: none,
      close: async () => undefined,
    },
    runner: 'r',
    concurrency: 1,
    limits: { handBackMs: 50, graceMs: 50, startMs: 100, ...options.limits },
  })
  const deliver = async (more: Partial<NonNullable<Delivery['volatile']>> = {}, name = job.name) =>
    consume?.process({
      id: '1',
      name,
      queue: job.queue,
      volatile: { payload: {}, attempt: 1, attempts: 3, stalls: 0, ...more },
      showProgress: async () => undefined,
    })
  return { runner, deliver, lose: () => consume?.onLost('1') }
}

describe('a delivery of work without a row', () => {
  it('that stalled five times is set aside', async () => {
    let runs = 0
    const { deliver } = createEngine(jobOf('q', 'job', async () => void runs++))
    expect(await deliver({ stalls: 5 })).toMatchObject({
      kind: 'failed',
      final: true,
      error: { name: 'JOB_POISONOUS' },
    })
    expect(await deliver({ stalls: 4 })).toEqual({ kind: 'finished', result: undefined })
    expect(runs).toBe(1)
  })

  it('hears by its signal that its lock was lost', async () => {
    const gate = createGate()
    const job = jobOf('q', 'job', async (_payload, _deps, { signal }) => {
      gate.open()
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
      return done(signal.reason.code)
    })
    const { deliver, lose } = createEngine(job)
    const disposition = deliver()
    await gate.opened
    lose()
    expect(await disposition).toEqual({ kind: 'handed-back' })
  })

  it('of a name that nobody defined comes again later, with jitter', async () => {
    const { deliver } = createEngine(jobOf('q', 'job', async () => undefined))
    const delays = await Promise.all(Array.from({ length: 20 }, () => deliver({}, 'other')))
    const ms = delays.map((each) => (each?.kind === 'delayed' ? each.ms : 0))
    expect(Math.min(...ms)).toBeGreaterThanOrEqual(5_000)
    expect(Math.max(...ms)).toBeLessThanOrEqual(10_000)
    expect(new Set(ms).size).toBeGreaterThan(5)
  })

  it('that arrives in a drain goes back', async () => {
    const { deliver, runner } = createEngine(jobOf('q', 'job', async () => undefined))
    void runner.drain()
    expect(await deliver()).toEqual({ kind: 'handed-back' })
  })
})

describe('a runner whose engine never answers', () => {
  const silent = () => createEngine(jobOf('q', 'job', () => new Promise<never>(() => undefined)))

  it('says after its limit that it does not start', async () => {
    const { runner } = createEngine(
      jobOf('q', 'job', async () => undefined),
      {
        start: () => new Promise<void>(() => undefined),
      },
    )
    await expect(runner.start()).rejects.toMatchObject({ code: 'QUEUE_UNAVAILABLE' })
    await runner.close(20)
  })

  it('drains, interrupts and closes all the same, each in its time', async () => {
    const { runner, deliver } = silent()
    await runner.start()
    const disposition = deliver()
    await eventually(() => expect(runner.active()).toMatchObject([{ phase: 'running' }]))
    const startedMs = performance.now()
    await runner.interrupt('deadline', 50)
    expect(await disposition).toEqual({ kind: 'handed-back' })
    await runner.drain()
    await runner.close(50)
    expect(performance.now() - startedMs).toBeLessThan(4_000)
  })
})
