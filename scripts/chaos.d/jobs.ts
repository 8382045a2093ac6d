import { appendFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { Type } from 'typebox'
import type { Deps } from '../../jobs/deps.ts'
import { defineJob, done, type JobContext } from '../../src/platform/queues/job.ts'

/** The runs that began, told to a file: neither store can take that back. A line a run: the job's id. */
const noteRun = (ctx: Pick<JobContext, 'id'>): void =>
  appendFileSync(process.env['CHAOS_RUNS'] ?? '/dev/null', `${ctx.id}\n`)

const quick = defineJob({
  name: 'quick',
  payload: Type.Object({ n: Type.Integer() }),
  async run({ n }, _deps: Deps, ctx) {
    noteRun(ctx)
    return done({ n })
  },
})

/** Leaves one row a job, in the transaction that finishes it. */
const effect = defineJob({
  name: 'effect',
  payload: Type.Object({ n: Type.Integer() }),
  async run({ n }, _deps: Deps, ctx) {
    noteRun(ctx)
    await pause(n % 50)
    return ctx.once(async (client) => {
      await client.query('INSERT INTO effects (job) VALUES ($1)', [ctx.id])
      return { n }
    })
  },
})

/** Leaves a row a step, each in the transaction of its checkpoint. */
const steps = defineJob({
  name: 'steps',
  payload: Type.Object({ n: Type.Integer(), count: Type.Integer() }),
  checkpoint: Type.Object({ step: Type.Integer() }),
  async run({ n, count }, _deps: Deps, ctx) {
    noteRun(ctx)
    const all = Array.from({ length: count }, (_, index) => index + 1)
    for await (const step of ctx.iterate(all)) {
      await pause(25, undefined, { signal: ctx.signal })
      await ctx.transact({ step }, async (client) => {
        await client.query('INSERT INTO steps (job, step) VALUES ($1, $2)', [ctx.id, step])
      })
    }
    return done({ n })
  },
})

const sleeper = defineJob({
  name: 'sleeper',
  payload: Type.Object({ n: Type.Integer(), ms: Type.Integer() }),
  async run({ n, ms }, _deps: Deps, ctx) {
    noteRun(ctx)
    ctx.progress(1)
    await pause(ms, undefined, { signal: ctx.signal })
    return done({ n })
  },
})

/** Does not heed its signal, and has its effect late. */
const stubborn = defineJob({
  name: 'stubborn',
  payload: Type.Object({ n: Type.Integer(), ms: Type.Integer() }),
  async run({ n, ms }, _deps: Deps, ctx) {
    noteRun(ctx)
    await pause(ms)
    return ctx.once(async (client) => {
      await client.query('INSERT INTO effects (job) VALUES ($1)', [ctx.id])
      return { n }
    })
  },
})

const flaky = defineJob({
  name: 'flaky',
  payload: Type.Object({ n: Type.Integer() }),
  backoff: { baseMs: 100, maxMs: 1_000 },
  async run({ n }, _deps: Deps, ctx) {
    noteRun(ctx)
    if (ctx.attempt === 1) throw new Error('the first time never works')
    return done({ n })
  },
})

const doomed = defineJob({
  name: 'doomed',
  payload: Type.Object({ n: Type.Integer() }),
  attempts: 2,
  backoff: { baseMs: 50, maxMs: 500 },
  async run(_payload, _deps: Deps, ctx) {
    noteRun(ctx)
    throw Object.assign(new Error('it never works'), { code: 'DOOMED' })
  },
})

/** Takes its process down, once. */
const crash = defineJob({
  name: 'crash',
  payload: Type.Object({ n: Type.Integer() }),
  checkpoint: Type.Object({ crashed: Type.Boolean() }),
  async run({ n }, _deps: Deps, ctx) {
    noteRun(ctx)
    if (!ctx.checkpoint?.crashed) {
      await ctx.save({ crashed: true })
      process.kill(process.pid, 'SIGKILL')
    }
    return done({ n })
  },
})

export const jobs = [quick, effect, steps, sleeper, stubborn, flaky, doomed, crash]
