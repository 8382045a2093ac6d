import { Type } from 'typebox'
import { describe, expect, it } from 'vitest'
import { INPUT_INVALID } from '../../../src/platform/queues/errors.ts'
import { cancel, done, snooze } from '../../../src/platform/queues/job.ts'
import { eventually } from '../../support/processes.ts'
import { createGate, type EngineKind, jobOf, useStage } from './harness.ts'

const never = new Promise<never>(() => undefined)

describe.each<EngineKind>(['redis', 'postgres'])('a runner on %s', (kind) => {
  const stage = useStage(kind)

  describe('a durable job', () => {
    it('gets its payload, its dependencies and its origin, and keeps its result', async () => {
      const { queue, run, enqueue, reaches, lines, counted } = stage()
      const job = jobOf(queue(), 'sum', async (payload, deps: { add: number }, ctx) => {
        ctx.log.info('at work')
        expect(ctx.draining).toBe(false)
        expect(ctx.signal.aborted).toBe(false)
        return done({ sum: (payload as { n: number }).n + deps.add, trace: ctx.traceparent })
      })
      await run([job], { deps: { add: 2 } })
      const id = await enqueue(job, { n: 1 }, { context: { requestId: 'req-1', traceparent: '00-a-b-01' } })
      expect(await reaches(id, 'completed')).toMatchObject({
        result: { sum: 3, trace: '00-a-b-01' },
        attempts: 1,
        interruptions: 0,
      })
      const line = lines.find((each) => each['jobId'] === id && each['msg'] === 'at work')
      expect(line).toMatchObject({ job: 'sum', attempt: 1, requestId: 'req-1' })
      expect(counted).toEqual(expect.arrayContaining(['started sum', 'finished sum completed']))
    })

    it('is tried again after a failure, and fails for good after its last attempt', async () => {
      const { queue, run, enqueue, reaches } = stage()
      const attempts: number[] = []
      const job = jobOf(
        queue(),
        'flaky',
        async (_payload, _deps, { attempt }) => {
          attempts.push(attempt)
          throw Object.assign(new Error(`no ${attempt}`), { code: 'E_FLAKY' })
        },
        { attempts: 3 },
      )
      await run([job])
      const view = await reaches(await enqueue(job), 'failed')
      expect(attempts).toEqual([1, 2, 3])
      expect(view).toMatchObject({ attempts: 3, error: { code: 'E_FLAKY', message: 'no 3' } })
      expect(view.error?.stack).toContain('job-runner.test.ts')
    })

    it.each([
      [
        'an error whose fields throw',
        () =>
          Promise.reject(
            Object.defineProperties(new Error('x'), {
              message: { get: () => JSON.parse('{') as string },
              code: { get: () => JSON.parse('{') as string },
            }),
          ),
      ],
      [
        'a result that throws when it is read',
        async () => ({
          kind: 'done',
          get result() {
            return JSON.parse('{') as string
          },
        }),
      ],
      [
        'an outcome that throws when it is read',
        async () => new Proxy({}, { has: () => JSON.parse('{') as boolean }),
      ],
    ])('ends when its handler gives %s', async (_what, handler) => {
      const { queue, run, enqueue, reaches } = stage()
      const job = jobOf(queue(), 'hostile', handler as never, { attempts: 1 })
      await run([job])
      expect(await reaches(await enqueue(job), 'failed')).toMatchObject({ attempts: 1 })
    })

    it('fails when its result is JSON once and not the next time', async () => {
      const { queue, run, enqueue, reaches } = stage()
      const job = jobOf(queue(), 'fickle', async () => {
        let times = 0
        return done({ toJSON: () => (++times > 1 ? 1n : 1) })
      })
      await run([job])
      expect(await reaches(await enqueue(job), 'failed')).toMatchObject({
        error: { code: 'JOB_RESULT_INVALID' },
        attempts: 1,
      })
    })

    it('is not held for ever by a wrapper that fails', async () => {
      const { queue, run, enqueue, reaches } = stage()
      const job = jobOf(queue(), 'unlucky', async () => done())
      let faults = 0
      const schemas = { payload: Type.Refine(Type.Any(), () => ++faults > 1 || (JSON.parse('{') as boolean)) }
      await run([{ ...job, ...schemas } as typeof job])
      expect(await reaches(await enqueue(job), 'completed')).toMatchObject({ attempts: 2, interruptions: 0 })
    })

    it('that does not wait for what it writes takes no process down when it is over', async () => {
      const { queue, run, enqueue, reaches, lines } = stage()
      const unhandled: unknown[] = []
      const listener = (reason: unknown): void => void unhandled.push(reason)
      process.on('unhandledRejection', listener)
      const gate = createGate()
      const job = jobOf(queue(), 'hasty', async (_payload, _deps, ctx) => {
        void ctx.once(() => gate.opened)
        void ctx.save({ a: () => 1n })
        return done('early')
      })
      await run([job])
      const id = await enqueue(job)
      expect(await reaches(id, 'completed')).toMatchObject({ result: 'early' })
      gate.open()
      await eventually(() =>
        expect(
          lines.filter(
            (each) => each['jobId'] === id && each['msg'] === 'a write of a handler came to nothing',
          ),
        ).not.toHaveLength(0),
      )
      await new Promise((resolve) => setImmediate(resolve))
      process.off('unhandledRejection', listener)
      expect(unhandled).toEqual([])
    })

    it('that was there at several crashes is run beside no other such one, and delays nobody else', async () => {
      const { queue, run, enqueue, reaches, postgres } = stage()
      let suspects = 0
      let most = 0
      let beside = 0
      const name = queue()
      const suspect = jobOf(name, 'suspect', async () => {
        most = Math.max(most, ++suspects)
        await new Promise((resolve) => setTimeout(resolve, 300))
        suspects--
      })
      const other = jobOf(name, 'other', async () => {
        beside = Math.max(beside, suspects)
        await new Promise((resolve) => setTimeout(resolve, 50))
      })
      const ids = await Promise.all([1, 2, 3].map(() => enqueue(suspect)))
      await postgres.query('UPDATE jobs SET crashes = 2 WHERE id = ANY($1)', [ids])
      const others = await Promise.all(Array.from({ length: 10 }, () => enqueue(other)))
      await run([suspect, other], { concurrency: 4 })
      for (const id of [...others, ...ids]) await reaches(id, 'completed')
      expect({ most, beside }).toEqual({ most: 1, beside: 1 })
      const { rows } = await postgres.query(
        'SELECT sum(interruptions)::int AS n, max(attempts) AS attempts FROM jobs WHERE id = ANY($1)',
        [ids],
      )
      expect(rows).toEqual([{ n: 0, attempts: 1 }])
    })

    it.each([
      ['null', null, 'Not an error was thrown, but null.'],
      ['undefined', undefined, 'Not an error was thrown, but undefined.'],
      ['an object', { a: 1 }, 'Not an error was thrown, but {"a":1}.'],
      ['a text', 'gone', 'gone'],
    ])('fails clearly when %s is thrown', async (_what, thrown, message) => {
      const { queue, run, enqueue, reaches } = stage()
      const job = jobOf(queue(), 'thrower', () => Promise.reject(thrown), { attempts: 1 })
      await run([job])
      const view = await reaches(await enqueue(job), 'failed')
      expect(view.error).toEqual({ code: 'JOB_FAILED', message })
    })

    it('fails clearly when the handler throws before it returns a promise', async () => {
      const { queue, run, enqueue, reaches } = stage()
      const job = jobOf(
        queue(),
        'sync',
        () => {
          throw new TypeError('at once')
        },
        { attempts: 1 },
      )
      await run([job])
      expect(await reaches(await enqueue(job), 'failed')).toMatchObject({ error: { message: 'at once' } })
    })

    it('is not tried again after an error that says it is in vain', async () => {
      const { queue, run, enqueue, reaches } = stage()
      const job = jobOf(queue(), 'vain', async () => Promise.reject(INPUT_INVALID({ summary: 'x' })), {
        attempts: 5,
      })
      await run([job])
      const view = await reaches(await enqueue(job), 'failed')
      expect(view).toMatchObject({ attempts: 1, error: { code: 'INPUT_INVALID' } })
    })

    it('whose payload does not fit any more fails for good and tells every fault', async () => {
      const { queue, run, enqueue, reaches } = stage()
      const payload = Type.Object({ a: Type.String(), b: Type.Number() })
      const job = jobOf(queue(), 'strict', async () => never, { payload, attempts: 5 })
      await run([job])
      const view = await reaches(await enqueue(job, { a: 1 }), 'failed')
      expect(view.attempts).toBe(1)
      expect(view.error).toMatchObject({
        code: 'INPUT_INVALID',
        faults: expect.arrayContaining([
          { path: '/b', message: 'is missing' },
          { path: '/a', message: 'must be a string' },
        ]),
      })
    })

    it('may snooze without using an attempt, and cancel itself', async () => {
      const { queue, run, enqueue, reaches } = stage()
      let runs = 0
      const job = jobOf(queue(), 'moody', async () => (++runs < 3 ? snooze(10) : cancel('no need')), {
        attempts: 1,
      })
      await run([job])
      expect(await reaches(await enqueue(job), 'cancelled')).toMatchObject({
        attempts: 0,
        error: { code: 'JOB_CANCELLED', message: 'no need' },
      })
      expect(runs).toBe(3)
    })

    it.each([
      ['a BigInt', 1n, /BigInt/],
      [
        'a cycle',
        Object.assign(
          {},
          {
            get self() {
              return this
            },
          },
        ),
        /circular/i,
      ],
      ['a function', () => 1, /function/],
      ['not a number', { n: Number.NaN }, /JSON cannot carry/],
      ['too large', 'x'.repeat(300_000), /300002 bytes/],
    ])('whose result is %s fails clearly', async (_what, result, message) => {
      const { queue, run, enqueue, reaches } = stage()
      const job = jobOf(queue(), 'odd', async () => done(result), { attempts: 3 })
      await run([job])
      const view = await reaches(await enqueue(job), 'failed')
      expect(view).toMatchObject({ attempts: 1, error: { code: 'JOB_RESULT_INVALID' } })
      expect(view.error?.message).toMatch(message)
    })

    it('that returns something else than an outcome fails clearly', async () => {
      const { queue, run, enqueue, reaches } = stage()
      const job = jobOf(queue(), 'wrong', (async () => ({ rows: 3 })) as never)
      await run([job])
      const view = await reaches(await enqueue(job), 'failed')
      expect(view.error).toMatchObject({ code: 'JOB_OUTCOME_INVALID' })
      expect(view.error?.message).not.toContain('3')
    })

    it('that finished already is dropped, and one that is missing too', async () => {
      const { queue, run, enqueue, reaches, backend } = stage()
      let runs = 0
      const job = jobOf(queue(), 'again', async () => void runs++)
      await run([job])
      const id = await enqueue(job)
      await reaches(id, 'completed')
      await backend.add(job.queue, [{ id, name: job.name, delayMs: 0, priority: 0 }])
      const missing = '0190aaaa-0000-7000-8000-000000000000'
      await backend.add(job.queue, [{ id: missing, name: job.name, delayMs: 0, priority: 0 }])
      await eventually(async () => {
        expect(await backend.counts(job.queue)).toMatchObject({ waiting: 0, active: 0, delayed: 0 })
      })
      expect(runs).toBe(1)
    })

    it('whose entry comes early waits for its time', async () => {
      const { queue, run, enqueue, reaches, backend } = stage()
      const job = jobOf(queue(), 'early', async () => undefined)
      await run([job])
      const id = await enqueue({ ...job, queue: `${job.queue}-elsewhere` }, {}, { delayMs: 300 })
      await backend.add(job.queue, [{ id, name: job.name, delayMs: 0, priority: 0 }])
      const view = await reaches(id, 'completed')
      expect(Date.parse(view.startedAt ?? '')).toBeGreaterThanOrEqual(Date.parse(view.runAt))
    })

    it('shows its progress a few times a second, and always the last', async () => {
      const { queue, run, enqueue, reaches, ledger } = stage()
      let writes = 0
      const counting = {
        saveProgress: (id: string, token: string, progress: unknown) => {
          writes++
          return ledger.saveProgress(id, token, progress)
        },
      }
      const job = jobOf(queue(), 'showing', async (_payload, _deps, ctx) => {
        for (let percent = 1; percent <= 100; percent++) {
          ctx.progress(percent)
          if (percent % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 60))
        }
      })
      await run([job], { ledger: counting })
      expect((await reaches(await enqueue(job), 'completed')).progress).toBe(100)
      expect(writes).toBeLessThanOrEqual(4)
      expect(writes).toBeGreaterThanOrEqual(2)
    })
  })

  describe('once', () => {
    it('writes the effect and the end together, however often the job is delivered', async () => {
      const { queue, run, enqueue, reaches, backend, postgres, ledger } = stage()
      const table = `effects_${queue()}`
      await postgres.query(`CREATE TABLE ${table} (job uuid)`)
      const gate = createGate()
      const job = jobOf(queue(), 'exact', async (_payload, _deps, ctx) => {
        const outcome = await ctx.once(async (client) => {
          await client.query(`INSERT INTO ${table} VALUES ($1)`, [ctx.id])
          return { n: 1 }
        })
        gate.open()
        return outcome
      })
      const id = await enqueue(job)
      // Two runners, two entries of the same job: one of them is held off, or finds the row finished.
      const other = { ...job, queue: `${job.queue}-twin` }
      await Promise.all([run([job]), run([other])])
      await backend.add(other.queue, [{ id, name: job.name, delayMs: 0, priority: 0 }])
      await gate.opened
      expect(await reaches(id, 'completed')).toMatchObject({ result: { n: 1 }, attempts: 1 })
      await eventually(async () => {
        expect(await backend.counts(other.queue)).toMatchObject({ waiting: 0, active: 0, delayed: 0 })
      })
      expect((await postgres.query(`SELECT * FROM ${table}`)).rowCount).toBe(1)
      expect((await ledger.get(id))?.state).toBe('completed')
    })

    it('takes back the effect when the run was lost meanwhile', async () => {
      const { queue, run, enqueue, reaches, postgres } = stage()
      const table = `effects_${queue()}`
      await postgres.query(`CREATE TABLE ${table} (attempt int)`)
      let first = true
      const job = jobOf(queue(), 'stolen', async (_payload, _deps, ctx) => {
        const steal = first
        first = false
        return ctx.once(async (client) => {
          await client.query(`INSERT INTO ${table} VALUES (1)`)
          // Somebody declared this run dead, as the reconciler does.
          if (steal) await postgres.query('UPDATE jobs SET run_token = NULL WHERE id = $1', [ctx.id])
        })
      })
      await run([job])
      await reaches(await enqueue(job), 'completed')
      expect((await postgres.query(`SELECT * FROM ${table}`)).rowCount).toBe(1)
    })

    it('stands, also when the handler fails after it', async () => {
      const { queue, run, enqueue, reaches } = stage()
      let runs = 0
      const job = jobOf(queue(), 'late', async (_payload, _deps, ctx) => {
        runs++
        await ctx.once(async () => 'kept')
        throw new Error('too late')
      })
      await run([job])
      expect(await reaches(await enqueue(job), 'completed')).toMatchObject({ result: 'kept' })
      expect(runs).toBe(1)
    })
  })

  describe('a timeout', () => {
    it('aborts the signal and counts as a failure that is tried again', async () => {
      const { queue, run, enqueue, reaches } = stage()
      const reasons: string[] = []
      const job = jobOf(
        queue(),
        'slow',
        (_payload, _deps, { signal }) =>
          new Promise((_resolve, reject) =>
            signal.addEventListener('abort', () => {
              reasons.push(signal.reason.code)
              reject(signal.reason as Error)
            }),
          ),
        { attempts: 2, timeoutMs: 60 },
      )
      await run([job])
      const view = await reaches(await enqueue(job), 'failed')
      expect(view).toMatchObject({ attempts: 2, error: { code: 'JOB_TIMED_OUT' } })
      expect(reasons).toEqual(['JOB_TIMED_OUT', 'JOB_TIMED_OUT'])
    })

    it('leaves a handler behind that never settles, and fences it', async () => {
      const { queue, run, enqueue, reaches, lines, postgres } = stage()
      const gate = createGate()
      const refused: unknown[] = []
      const job = jobOf(
        queue(),
        'deaf',
        async (_payload, _deps, ctx) => {
          await gate.opened
          ctx.progress('ghost')
          await ctx.save('ghost').catch((error: { code: string }) => refused.push(error.code))
          await ctx.once(async () => 1).catch((error: { code: string }) => refused.push(error.code))
          return done('ghost')
        },
        { attempts: 1, timeoutMs: 60 },
      )
      const runner = await run([job])
      const id = await enqueue(job)
      expect(await reaches(id, 'failed')).toMatchObject({ error: { code: 'JOB_TIMED_OUT' } })
      expect(runner.active()).toMatchObject([{ id, name: 'deaf', phase: 'left-behind', attempt: 1 }])
      expect(lines.some((line) => line['jobId'] === id && /left behind/.test(String(line['msg'])))).toBe(true)
      gate.open()
      await eventually(() => expect(runner.active()).toEqual([]))
      expect(refused).toEqual(['JOB_TIMED_OUT', 'JOB_TIMED_OUT'])
      const { rows } = await postgres.query('SELECT outcome, progress, checkpoint FROM jobs WHERE id = $1', [
        id,
      ])
      expect(rows).toEqual([{ outcome: 'failed', progress: null, checkpoint: null }])
    })

    it('lets an explicit outcome count that comes within the grace, and nothing less', async () => {
      const { queue, run, enqueue, reaches } = stage()
      const quit = (returns: unknown) =>
        jobOf(
          queue(),
          returns ? 'says-done' : 'just-leaves',
          async (_payload, _deps, { signal }) => {
            await new Promise((resolve) => signal.addEventListener('abort', resolve))
            return returns as undefined
          },
          { attempts: 1, timeoutMs: 50 },
        )
      const [says, leaves] = [quit(done('all of it')), quit(undefined)]
      await run([says, leaves])
      expect(await reaches(await enqueue(says), 'completed')).toMatchObject({ result: 'all of it' })
      expect(await reaches(await enqueue(leaves), 'failed')).toMatchObject({
        error: { code: 'JOB_TIMED_OUT' },
      })
    })
  })

  describe('a cancel', () => {
    const waiting = (queue: string, heard: string[] = []) =>
      jobOf(
        queue,
        'waiting',
        (_payload, _deps, { signal }) =>
          new Promise((_resolve, reject) =>
            signal.addEventListener('abort', () => {
              heard.push(signal.reason.code)
              reject(signal.reason as Error)
            }),
          ),
      )

    it('that is published aborts the signal at once, on whichever node', async () => {
      const { queue, run, enqueue, reaches, ledger, bus } = stage()
      const heard: string[] = []
      const job = waiting(queue(), heard)
      await Promise.all([run([job]), run([job])])
      const id = await enqueue(job)
      await reaches(id, 'active')
      expect(await ledger.cancel(id)).toBe('requested')
      await bus.publish('job-cancel', id)
      const view = await reaches(id, 'cancelled')
      expect(view).toMatchObject({ attempts: 0, error: { code: 'JOB_CANCELLED' } })
      expect(heard).toEqual(['JOB_CANCELLED'])
    })

    it('is heard without the bus, by a look at the rows', async () => {
      const { queue, run, enqueue, reaches, ledger } = stage()
      const job = waiting(queue())
      await run([job], { limits: { cancelLookMs: 100 } })
      const id = await enqueue(job)
      await reaches(id, 'active')
      await ledger.cancel(id)
      expect(await reaches(id, 'cancelled')).toMatchObject({ attempts: 0 })
    })

    it('ends the job although the handler ignores it', async () => {
      const { queue, run, enqueue, reaches, ledger } = stage()
      const job = jobOf(queue(), 'ignoring', () => never)
      const runner = await run([job], { limits: { cancelLookMs: 50 } })
      const id = await enqueue(job)
      await reaches(id, 'active')
      await ledger.cancel(id)
      await reaches(id, 'cancelled')
      expect(runner.active()).toMatchObject([{ id, phase: 'left-behind' }])
    })

    it('that the rows know nothing of does nothing, whatever the bus says', async () => {
      const { queue, run, enqueue, reaches, bus } = stage()
      const gate = createGate()
      const job = jobOf(queue(), 'steady', async (_payload, _deps, ctx) => {
        await gate.opened
        return done(ctx.signal.aborted)
      })
      await run([job])
      const id = await enqueue(job)
      await reaches(id, 'active')
      await bus.publish('job-cancel', id)
      await bus.publish('job-cancel', 'nonsense')
      gate.open()
      expect(await reaches(id, 'completed')).toMatchObject({ result: false })
    })
  })

  describe('a name that nobody defined', () => {
    it('is left to others at first, and fails clearly after some time', async () => {
      const { queue, run, enqueue, reaches, backend, ledger } = stage()
      const known = jobOf(queue(), 'known', async () => undefined)
      const unknown = { ...known, name: 'of-tomorrow' }
      const runner = await run([known])
      const id = await enqueue(unknown)
      await eventually(async () => expect(await backend.counts(known.queue)).toMatchObject({ delayed: 1 }))
      expect(await ledger.get(id)).toMatchObject({ state: 'waiting', attempts: 0 })
      await runner.close(1_000)
      await run([known], { limits: { unknownMs: 0 } })
      const another = await enqueue(unknown)
      expect(await reaches(another, 'failed')).toMatchObject({ error: { code: 'JOB_UNKNOWN' } })
    })
  })

  describe('work without a row', () => {
    it('goes through the same wrapper and leaves its result with the engine', async () => {
      const { queue, run, enqueueVolatile, backend } = stage()
      const job = jobOf(queue(), 'light', async (payload, _deps, ctx) => {
        ctx.progress({ half: true })
        return done({ got: payload, attempt: ctx.attempt })
      })
      await run([job])
      const id = await enqueueVolatile(job, { n: 1 })
      await eventually(async () => {
        expect(await backend.find(job.queue, id)).toMatchObject({
          state: 'completed',
          result: { got: { n: 1 }, attempt: 1 },
          progress: { half: true },
        })
      })
    })

    it('is tried again by the engine and fails with its error', async () => {
      const { queue, run, enqueueVolatile, backend, counted } = stage()
      const job = jobOf(queue(), 'light-flaky', async () => Promise.reject(new Error('no')), { attempts: 2 })
      await run([job])
      const id = await enqueueVolatile(job)
      await eventually(async () => {
        expect(await backend.find(job.queue, id)).toMatchObject({ state: 'failed', error: 'no', attempts: 2 })
      })
      expect(counted.filter((each) => each.includes('light-flaky'))).toEqual([
        'started light-flaky',
        'finished light-flaky retried',
        'started light-flaky',
        'finished light-flaky failed',
      ])
    })

    it('whose payload does not fit fails at once', async () => {
      const { queue, run, enqueueVolatile, backend } = stage()
      const payload = Type.Object({ a: Type.String() })
      const job = jobOf(queue(), 'light-strict', async () => never, { payload, attempts: 5 })
      await run([job])
      const id = await enqueueVolatile(job, {})
      await eventually(async () => {
        expect(await backend.find(job.queue, id)).toMatchObject({
          state: 'failed',
          error: 'The input does not fit: /a is missing.',
        })
      })
    })
  })
})
