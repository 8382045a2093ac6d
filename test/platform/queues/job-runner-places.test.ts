import { Type } from 'typebox'
import { describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { defineJob, type Job } from '../../../src/platform/queues/job.ts'
import { eventually } from '../../support/processes.ts'
import { useStage } from './harness.ts'

const clock = createSystemClock()

describe.each(['redis', 'postgres'] as const)('the places of a runner on %s', (kind) => {
  const stage = useStage(kind)

  it.each([true, false])(
    'go to quick jobs in bulk, and what waits behind a long one goes elsewhere (row: %s)',
    async (durable) => {
      const at = stage()
      const queue = at.queue()
      const { promise: gate, resolve: open } = Promise.withResolvers<void>()
      const done = new Set<number>()
      let running = 0
      let most = 0
      const define = (first: boolean): Job<{ n: number }> =>
        defineJob({
          name: `each-${queue}`,
          queue,
          durable,
          payload: Type.Object({ n: Type.Integer() }),
          run: async ({ n }) => {
            if (first) most = Math.max(most, ++running)
            if (n < 0 && first) await gate
            else if (first) await Promise.resolve()
            else await clock.sleep(1)
            if (first) running--
            done.add(n)
          },
        })
      const job = define(true)
      const enqueue = (n: number): Promise<string> =>
        durable ? at.enqueue(job, { n }) : at.enqueueVolatile(job as Job, { n })
      const first = await at.run([job as Job<never>], { concurrency: 2 })
      await Promise.all(Array.from({ length: 300 }, (_, n) => enqueue(n)))
      await eventually(() => expect(done.size).toBe(300), { timeoutMs: 30_000 })
      expect(most).toBe(2)

      const held = await Promise.all([enqueue(-1), enqueue(-2)])
      const behind = await Promise.all(Array.from({ length: 60 }, (_, n) => enqueue(1_000 + n)))
      await at.run([define(false) as Job<never>], { concurrency: 2 })
      // Those that must wait until both places are free would wait for ever.
      await eventually(() => expect([...done].filter((n) => n >= 1_000)).toHaveLength(60), {
        timeoutMs: 30_000,
      })
      open()
      await eventually(() => expect(first.active()).toEqual([]))
      expect(most).toBe(2)
      if (!durable) return
      for (const id of [...held, ...behind]) {
        expect(await at.reaches(id, 'completed')).toMatchObject({ attempts: 1, interruptions: 0 })
      }
    },
  )
})
