import { Type } from 'typebox'
import type { Deps } from '../../../jobs/deps.ts'
import { jobs as projectJobs } from '../../../jobs/index.ts'
import type { Client } from '../../platform/postgres/postgres.ts'
import { defineJob, done } from '../../platform/queues/job.ts'

/** Leaves one row a job, in the transaction that finishes the job. */
const tally = defineJob({
  name: 'tally',
  queue: 'demo',
  payload: Type.Object({ scene: Type.String(), n: Type.Integer(), forMs: Type.Optional(Type.Integer()) }),
  async run({ scene, n, forMs = 0 }, _deps: Deps, ctx) {
    if (forMs > 0) await pause(forMs)
    return ctx.once((client) => leaveEffect(client, scene, n))
  },
})

/** Walks in steps, each of them with its checkpoint in one transaction. */
const walk = defineJob({
  name: 'walk',
  queue: 'demo',
  payload: Type.Object({ scene: Type.String(), steps: Type.Integer(), stepMs: Type.Integer() }),
  checkpoint: Type.Object({ done: Type.Integer() }),
  async run({ scene, steps, stepMs }, _deps: Deps, ctx) {
    for await (const step of ctx.iterate((from) => range(from?.done ?? 0, steps))) {
      await pause(stepMs)
      await ctx.transact({ done: step + 1 }, (client) => leaveEffect(client, scene, step))
      ctx.progress({ step: step + 1, of: steps })
    }
    return done({ steps })
  },
})

export const jobs = [...projectJobs, tally, walk]

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

async function leaveEffect(client: Client, scene: string, n: number): Promise<void> {
  await client.query('INSERT INTO demo_effects (scene, n) VALUES ($1, $2)', [scene, n])
}

function* range(from: number, to: number): Iterable<number> {
  for (let n = from; n < to; n++) yield n
}
