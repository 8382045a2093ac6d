import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { done } from '../../../src/platform/queues/job.ts'
import type { Ledger } from '../../../src/platform/queues/ledger.ts'
import { eventually } from '../../support/processes.ts'
import { createGate, type EngineKind, jobOf, type Stage, useStage } from './harness.ts'

const never = new Promise<never>(() => undefined)
const away = (): Promise<never> =>
  Promise.reject(Object.assign(new Error('gone'), { code: 'DATABASE_UNAVAILABLE' }))

/** Longest of any promise that must not hang, with room for a busy machine. */
async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const startedMs = performance.now()
  await work
  expect(performance.now() - startedMs).toBeLessThan(ms)
}

describe.each<EngineKind>(['redis', 'postgres'])('stopping a runner on %s', (kind) => {
  const stage = useStage(kind)

  /** Not at once: a fetch that was under way when quiet was asked for takes an entry and gives it back. */
  const isWaiting = (at: Stage, queue: string, waiting: number) =>
    eventually(async () => {
      expect(await at.backend.counts(queue)).toMatchObject({ waiting, active: 0, delayed: 0 })
    })

  describe('quiet', () => {
    it('fetches nothing new, and what runs goes on', async () => {
      const { queue, run, enqueue, reaches, ledger } = stage()
      const gate = createGate()
      const job = jobOf(queue(), 'gated', async () => gate.opened)
      const runner = await run([job])
      const id = await enqueue(job)
      await reaches(id, 'active')
      runner.quiet()
      const next = await enqueue(job)
      gate.open()
      await reaches(id, 'completed')
      await pause(100)
      expect((await ledger.get(next))?.state).toBe('waiting')
    })
  })

  describe('a drain', () => {
    it('lets jobs finish and leaves the rest to others', async () => {
      const at = stage()
      const { queue, run, enqueue, reaches } = at
      const gate = createGate()
      const job = jobOf(queue(), 'gated', async (_payload, _deps, ctx) => {
        await gate.opened
        return done(ctx.draining)
      })
      const runner = await run([job], { concurrency: 2 })
      const ids = [await enqueue(job), await enqueue(job), await enqueue(job)]
      await reaches(ids[1] ?? '', 'active')
      await eventually(() => expect(runner.active()).toHaveLength(2))
      const drained = runner.drain()
      gate.open()
      await within(3_000, drained)
      expect(runner.active()).toEqual([])
      for (const id of ids.slice(0, 2)) {
        expect(await reaches(id, 'completed')).toMatchObject({ result: true, interruptions: 0 })
      }
      await isWaiting(at, job.queue, 1)
    })

    it('of an idle runner ends at once, and again, and after a close', async () => {
      const { queue, run } = stage()
      const runner = await run([jobOf(queue(), 'idle', async () => undefined)])
      await within(1_500, runner.drain())
      await within(1_500, runner.drain())
      await within(2_500, runner.close(2_000))
      await within(1_500, runner.drain())
      await within(2_500, runner.close(2_000))
      expect(runner.active()).toEqual([])
    })

    it('in an iteration loses no row and doubles none: it goes on elsewhere from its checkpoint', async () => {
      const at = stage()
      const { queue, run, enqueue, reaches, postgres } = at
      const table = `rows_${queue()}`
      await postgres.query(`CREATE TABLE ${table} (n int)`)
      const job = jobOf(queue(), 'importing', async (_payload, _deps, ctx) => {
        let sum = (ctx.checkpoint as { sum: number } | undefined)?.sum ?? 0
        const source = Array.from({ length: 60 }, (_, index) => index)
        for await (const n of ctx.iterate(source, { save: () => ({ sum }) })) {
          await postgres.query(`INSERT INTO ${table} VALUES ($1)`, [n])
          sum += n
          await pause(3)
        }
        return done(sum)
      })
      const id = await enqueue(job)
      for (let interruptions = 0; interruptions < 3; interruptions++) {
        const runner = await run([job])
        const before = Number(
          (await postgres.query(`SELECT count(*)::int AS n FROM ${table}`)).rows[0]?.['n'],
        )
        await eventually(async () => {
          const { rows } = await postgres.query(`SELECT count(*)::int AS n FROM ${table}`)
          expect(Number(rows[0]?.['n'])).toBeGreaterThan(before + 3)
        })
        await within(3_000, runner.drain())
        expect(await at.ledger.get(id)).toMatchObject({ state: 'waiting', interruptions: interruptions + 1 })
        await isWaiting(at, job.queue, 1)
      }
      await run([job])
      const view = await reaches(id, 'completed')
      expect(view).toMatchObject({ result: 1770, attempts: 1, interruptions: 3 })
      const { rows } = await postgres.query(
        `SELECT count(*)::int AS n, count(DISTINCT n)::int AS d FROM ${table}`,
      )
      expect(rows).toEqual([{ n: 60, d: 60 }])
    })
  })

  describe('an interruption', () => {
    it('aborts the signals, uses no attempt, and the jobs run elsewhere at once', async () => {
      const { queue, run, enqueue, reaches, counted } = stage()
      let stopped = 0
      const job = jobOf(
        queue(),
        'willing',
        async (_payload, deps: { stay: boolean }, { signal, attempt }) => {
          if (!deps.stay) return done(attempt)
          await new Promise((resolve) => signal.addEventListener('abort', resolve))
          expect(signal.reason).toMatchObject({ code: 'JOB_INTERRUPTED' })
          stopped++
          throw new Error('whatever comes of an abort')
        },
        { attempts: 1 },
      )
      const runner = await run([job], { deps: { stay: true } })
      const ids = await Promise.all([enqueue(job), enqueue(job)])
      await eventually(() =>
        expect(runner.active().map((each) => each.phase)).toEqual(['running', 'running']),
      )
      await within(2_500, runner.interrupt('deadline', 2_000))
      expect(stopped).toBe(2)
      await run([job], { deps: { stay: false } })
      for (const id of ids) {
        expect(await reaches(id, 'completed')).toMatchObject({ attempts: 1, interruptions: 1, result: 1 })
      }
      expect(counted).toContain('interrupted willing deadline')
    })

    it('hands back the job of a handler that never settles, and fences it', async () => {
      const at = stage()
      const { queue, run, enqueue, reaches } = at
      const gate = createGate()
      const late: unknown[] = []
      const job = jobOf(queue(), 'deaf', async (_payload, deps: { deaf: boolean }, ctx) => {
        if (!deps.deaf) return done('elsewhere')
        await gate.opened
        await ctx.save('late').catch((error: { code: string }) => late.push(error.code))
        return done('here')
      })
      const runner = await run([job], { deps: { deaf: true } })
      const id = await enqueue(job)
      await reaches(id, 'active')
      await within(2_000, runner.interrupt('deadline', 100))
      expect(await at.ledger.get(id)).toMatchObject({ state: 'waiting', interruptions: 1 })
      await isWaiting(at, job.queue, 1)
      await run([job], { deps: { deaf: false } })
      expect(await reaches(id, 'completed')).toMatchObject({ result: 'elsewhere' })
      gate.open()
      await eventually(() => expect(late).toEqual(['JOB_INTERRUPTED']))
      expect(await at.ledger.get(id)).toMatchObject({ result: 'elsewhere' })
    })

    it('ends a drain that would never end', async () => {
      const { queue, run, enqueue, reaches } = stage()
      const job = jobOf(queue(), 'endless', () => never)
      const runner = await run([job])
      await reaches(await enqueue(job), 'active')
      const drained = runner.drain()
      await within(3_000, runner.interrupt('deadline', 50))
      await within(1_000, drained)
      expect(runner.active()).toMatchObject([{ phase: 'left-behind' }])
    })

    it('of work without a row hands it back too', async () => {
      const at = stage()
      const { queue, run, enqueueVolatile } = at
      const job = jobOf(queue(), 'light', () => never)
      const runner = await run([job])
      await enqueueVolatile(job)
      await eventually(() => expect(runner.active()).toHaveLength(1))
      await within(3_000, runner.interrupt('deadline', 50))
      await isWaiting(at, job.queue, 1)
    })

    it('is what a close does to jobs that still run', async () => {
      const { queue, run, enqueue, reaches, ledger } = stage()
      const job = jobOf(queue(), 'running', () => never)
      const runner = await run([job])
      const id = await enqueue(job)
      await reaches(id, 'active')
      await within(5_000, runner.close(2_000))
      expect(await ledger.get(id)).toMatchObject({ state: 'waiting', interruptions: 1 })
    })
  })

  describe('Postgres away', () => {
    it('at the end of a job: the end is written when it is back, and the job is not done twice', async () => {
      const { queue, run, enqueue, reaches, ledger } = stage()
      let failures = 3
      let runs = 0
      const job = jobOf(queue(), 'effect', async () => done(++runs))
      await run([job], {
        ledger: { finish: (...args) => (failures-- > 0 ? away() : ledger.finish(...args)) },
      })
      expect(await reaches(await enqueue(job), 'completed')).toMatchObject({ result: 1 })
      expect(runs).toBe(1)
    })

    it('at the end of a job, its answer lost although it was written: the job is not done twice', async () => {
      const { queue, run, enqueue, reaches, ledger } = stage()
      let lost = false
      let runs = 0
      const job = jobOf(queue(), 'unheard', async () => done(++runs))
      const finish: Ledger['finish'] = async (...args) => {
        const written = await ledger.finish(...args)
        if (lost) return written
        lost = true
        return away()
      }
      await run([job], { ledger: { finish } })
      const id = await enqueue(job)
      expect(await reaches(id, 'completed')).toMatchObject({ result: 1 })
      await isWaiting(stage(), job.queue, 0)
      expect(runs).toBe(1)
    })

    it('at the start of a job: it is started when it is back, also when only the answer was lost', async () => {
      const { queue, run, enqueue, reaches, ledger } = stage()
      let failures = 2
      const job = jobOf(queue(), 'starting', async () => undefined)
      const start: Ledger['start'] = async (...args) => {
        if (failures-- > 0) {
          if (failures === 0) await ledger.start(...args)
          return away()
        }
        return ledger.start(...args)
      }
      await run([job], { ledger: { start } })
      expect(await reaches(await enqueue(job), 'completed')).toMatchObject({ attempts: 1 })
    })

    it.each<[string, () => Promise<never>]>([
      ['refusing', away],
      ['silent', () => never],
    ])('for good and %s: a stop still ends in time, and the entries go back', async (_how, answer) => {
      const at = stage()
      const { queue, run, enqueue } = at
      const gate = createGate()
      const job = jobOf(queue(), 'unwritten', async (payload) => {
        if ((payload as { ends?: true }).ends) return
        gate.open()
        await never
      })
      const runner = await run([job], { ledger: { finish: answer } })
      const ended = await enqueue(job, { ends: true })
      await enqueue(job)
      await gate.opened
      await eventually(() => {
        expect(runner.active().find((each) => each.id === ended)?.phase).toBe('finishing')
      })
      void runner.drain()
      await within(4_000, runner.interrupt('deadline', 100))
      expect(runner.active().filter((each) => each.phase !== 'left-behind')).toEqual([])
      await isWaiting(at, job.queue, 2)
      await within(2_500, runner.close(2_000))
    })

    it('while a job is asked for: a stop does not wait for the answer, and the row is not held by it', async () => {
      const at = stage()
      const { queue, run, enqueue, ledger, reaches } = at
      const gate = createGate()
      const job = jobOf(queue(), 'asked', async () => undefined)
      const runner = await run([job], {
        ledger: { start: (...args) => gate.opened.then(() => ledger.start(...args)) },
      })
      const id = await enqueue(job)
      await eventually(() => expect(runner.active()).toHaveLength(1))
      await within(3_000, runner.interrupt('deadline', 50))
      gate.open()
      await eventually(async () => {
        const { rows } = await at.postgres.query('SELECT run_token, interruptions FROM jobs WHERE id = $1', [
          id,
        ])
        expect(rows).toEqual([{ run_token: null, interruptions: 1 }])
      })
      await run([job])
      await reaches(id, 'completed')
    })
  })

  describe('a run that was lost', () => {
    it('writes nothing any more, hears it by its signal, and the job is done by the other', async () => {
      const at = stage()
      const { queue, run, enqueue, reaches, postgres } = at
      const heard: string[] = []
      const gate = createGate()
      let first = true
      const job = jobOf(queue(), 'robbed', async (_payload, _deps, ctx) => {
        if (!first) return done('the other')
        first = false
        // What the reconciler does to a run whose runner seems dead.
        await postgres.query('UPDATE jobs SET run_token = NULL WHERE id = $1', [ctx.id])
        ctx.signal.addEventListener('abort', () => heard.push(ctx.signal.reason.code))
        ctx.progress(1)
        await eventually(() => expect(ctx.signal.aborted).toBe(true))
        await ctx.save('x').catch((error: { code: string }) => heard.push(error.code))
        gate.open()
        return done('the first')
      })
      await run([job])
      const id = await enqueue(job)
      await gate.opened
      expect(await reaches(id, 'completed')).toMatchObject({ result: 'the other' })
      expect(heard).toEqual(['JOB_LOST', 'JOB_LOST'])
    })

    it('by a process that died with it is taken over from its checkpoint', async () => {
      const at = stage()
      const { queue, run, enqueue, reaches, backend } = at
      const job = jobOf(queue(), 'orphan', async (_payload, deps: { die: boolean }, ctx) => {
        if (!deps.die) return done({ from: ctx.checkpoint })
        await ctx.save('half')
        return never
      })
      const runner = await run([job], { deps: { die: true } })
      const id = await enqueue(job)
      await eventually(async () => {
        const { rows } = await at.postgres.query('SELECT checkpoint FROM jobs WHERE id = $1', [id])
        expect(rows).toEqual([{ checkpoint: { value: 'half' } }])
      })
      await runner.die()
      await run([job], { deps: { die: false } })
      await backend.handBack(job.queue, runner.id)
      expect(await reaches(id, 'completed')).toMatchObject({
        result: { from: 'half' },
        interruptions: 1,
        attempts: 1,
      })
    })
  })
})
