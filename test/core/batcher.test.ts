import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { createBatcher } from '../../src/core/batcher.ts'
import { messageOf } from '../../src/core/errors.ts'

/** Runs batches when told to, and notes them. */
function createHeldRun() {
  const batches: number[][] = []
  const endings: { succeed(): void; fail(error: Error): void }[] = []
  const run = (items: number[]): Promise<string[]> => {
    batches.push(items)
    const { promise, resolve, reject } = Promise.withResolvers<string[]>()
    endings.push({ succeed: () => resolve(items.map(String)), fail: reject })
    return promise
  }
  return { run, batches, endings }
}

it('gives everyone his own result, whatever the order and the size of batches', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.integer(), fc.boolean()), { maxLength: 60 }),
      fc.integer({ min: 1, max: 10 }),
      fc.integer({ min: 1, max: 4 }),
      async (items, maxItems, concurrency) => {
        let underWay = 0
        const run = async (batch: number[]): Promise<number[]> => {
          expect(batch.length).toBeGreaterThan(0)
          expect(batch.length).toBeLessThanOrEqual(maxItems)
          expect(++underWay).toBeLessThanOrEqual(concurrency)
          await turn()
          underWay--
          return batch.map((item) => item * 2)
        }
        const batcher = createBatcher({ run, maxItems, concurrency })
        const results: Promise<number>[] = []
        for (const [item, pause] of items) {
          results.push(batcher.add(item))
          if (pause) await turn()
        }
        expect(await Promise.all(results)).toEqual(items.map(([item]) => item * 2))
        await batcher.idle()
        expect(batcher.pending).toBe(0)
      },
    ),
    { numRuns: 50 },
  )
})

it('sends a lone call at once, and fills the next batch meanwhile', async () => {
  const { run, batches, endings } = createHeldRun()
  const batcher = createBatcher({ run, maxItems: 10 })
  const first = batcher.add(1)
  await turn()
  expect(batches).toEqual([[1]])
  const rest = [batcher.add(2), batcher.add(3)]
  await turn()
  expect(batches).toEqual([[1]])
  expect(batcher.pending).toBe(3)
  endings[0]?.succeed()
  await first
  await turn()
  await turn()
  expect(batches).toEqual([[1], [2, 3]])
  endings[1]?.succeed()
  expect(await Promise.all(rest)).toEqual(['2', '3'])
})

it('fails those of one batch alone, and goes on', async () => {
  const { run, endings } = createHeldRun()
  const batcher = createBatcher({ run, maxItems: 1 })
  const [bad, good] = [batcher.add(1), batcher.add(2)]
  const reason = bad.then(String, messageOf)
  await turn()
  endings[0]?.fail(new Error('away'))
  expect(await reason).toBe('away')
  await turn()
  await turn()
  endings[1]?.succeed()
  expect(await good).toBe('2')
})

it('is idle only when nothing waits and nothing is under way', async () => {
  const { run, endings } = createHeldRun()
  const batcher = createBatcher({ run, maxItems: 1 })
  await batcher.idle()
  const adds = [batcher.add(1), batcher.add(2)]
  let idle = false
  const waiting = batcher.idle().then(() => {
    idle = true
  })
  await turn()
  endings[0]?.succeed()
  await adds[0]
  await turn()
  await turn()
  expect(idle).toBe(false)
  endings[1]?.succeed()
  await waiting
  expect(batcher.pending).toBe(0)
})
