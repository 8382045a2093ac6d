import { setTimeout as pause } from 'node:timers/promises'
import fc from 'fast-check'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { type ActiveRun, createActiveRun, stopRun } from '../../../src/platform/queues/active-run.ts'
import type { Delivery } from '../../../src/platform/queues/backend.ts'
import { JOB_CANCELLED } from '../../../src/platform/queues/errors.ts'
import type { JobContext } from '../../../src/platform/queues/job.ts'
import { createJobContext } from '../../../src/platform/queues/job-context.ts'
import type { Ledger } from '../../../src/platform/queues/ledger.ts'

/** A row and the handler's own table, with transactions: what Postgres is to a run. */
interface Store {
  checkpoint: unknown
  rows: number[]
  saves: number
}

interface Life {
  run: ActiveRun
  context: JobContext<number>
  drain(): void
}

class Crash extends Error {}

const clock = createSystemClock()
const delivery = (volatile = false): Delivery => ({
  id: '0',
  name: 'job',
  queue: 'default',
  showProgress: async () => undefined,
  ...(volatile ? { volatile: { payload: {}, attempt: 1, attempts: 1, stalls: 0 } } : {}),
})
const never = (): never => {
  throw new Error('not used')
}

/** One run over the store. `step` is called at every point at which a process may die. */
function live(store: Store, step: () => void = () => undefined, volatile = false): Life {
  let draining = false
  const run = createActiveRun(delivery(volatile), { epochMs: 0, monotonicMs: 0 }, () => undefined)
  let staged: Partial<Store> | undefined
  const ledger = {
    saveCheckpoint: async (_id: string, _token: string, checkpoint: unknown, database?: unknown) => {
      step()
      const copy: unknown = JSON.parse(JSON.stringify(checkpoint))
      if (database) staged = { ...staged, checkpoint: copy }
      else {
        store.checkpoint = copy
        store.saves++
      }
      step()
      return true
    },
  } as unknown as Ledger
  const transaction = async <T>(work: (client: never) => Promise<T>): Promise<T> => {
    staged = { rows: [...store.rows] }
    const client = { insert: (row: number) => staged?.rows?.push(row) }
    const result = await work(client as never)
    step()
    Object.assign(store, staged)
    step()
    return result
  }
  const context = createJobContext({
    run,
    checkpoint: store.checkpoint,
    ledger,
    database: { transaction },
    clock,
    log: pino({ level: 'silent' }),
    draining: () => draining,
  }) as JobContext<number>
  return {
    run,
    context,
    drain: () => {
      draining = true
      run.wake?.()
    },
  }
}

const emptyStore = (): Store => ({ checkpoint: undefined, rows: [], saves: 0 })
const covered = (store: Store): number => (store.checkpoint as { at: number[] } | undefined)?.at[0] ?? 0
const range = (length: number): number[] => Array.from({ length }, (_, index) => index)

async function* slowly(items: number[]): AsyncGenerator<number> {
  for (const item of items) {
    await Promise.resolve()
    yield item
  }
}

/** Inserts each item in the transaction of its checkpoint. */
async function applyAll({ context }: Life, items: Iterable<number> | AsyncIterable<number>): Promise<void> {
  for await (const item of context.iterate(items)) {
    await context.transact(item, async (client) => {
      ;(client as unknown as { insert(row: number): void }).insert(item)
    })
  }
}

describe('an iteration with transact', () => {
  it('has applied exactly what its checkpoint covers, whenever the process dies', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat({ max: 12 }),
        fc.array(fc.nat({ max: 30 }), { maxLength: 6 }),
        fc.boolean(),
        async (length, deaths, isSlow) => {
          const store = emptyStore()
          for (const death of [...deaths, Number.POSITIVE_INFINITY]) {
            let steps = 0
            const life = live(store, () => {
              if (steps++ === death) throw new Crash()
            })
            const items = range(length)
            await applyAll(life, isSlow ? slowly(items) : items).catch((error: unknown) => {
              if (!(error instanceof Crash)) throw error
            })
            expect(store.rows).toEqual(range(covered(store)))
          }
          expect(store.rows).toEqual(range(length))
        },
      ),
      { numRuns: 300 },
    )
  })
})

describe('an iteration with save', () => {
  it('repeats only what follows the last checkpoint and leaves nothing out, whenever the process dies', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 10 }),
        fc.array(fc.nat({ max: 25 }), { maxLength: 6 }),
        fc.boolean(),
        async (length, deaths, opensItself) => {
          const store = emptyStore()
          for (const death of [...deaths, Number.POSITIVE_INFINITY]) {
            let steps = 0
            const step = (): void => {
              if (steps++ === death) throw new Crash()
            }
            const { context } = live(store, step)
            const start = opensItself ? (context.checkpoint ?? -1) + 1 : covered(store)
            const seen: number[] = []
            const source = opensItself
              ? (from: number | undefined) => range(length).slice((from ?? -1) + 1)
              : range(length)
            const work = async (): Promise<void> => {
              // A checkpoint after every item: the more there are, the more can go wrong between two of them.
              for await (const item of context.iterate(source, { save: (last) => last, everyMs: 0 })) {
                step()
                seen.push(item)
              }
            }
            await work().catch((error: unknown) => {
              if (!(error instanceof Crash) && !(error as Error).message.includes('not be saved')) throw error
            })
            expect(seen).toEqual(range(length).slice(start, start + seen.length))
            // Never ahead of the work: what is covered was seen, in this life or before.
            const last = seen.at(-1) ?? start - 1
            expect(context.checkpoint === undefined || last >= start - 1).toBe(true)
            const reached = opensItself
              ? Number((store.checkpoint as { value: number } | undefined)?.value ?? -1)
              : covered(store) - 1
            expect(reached).toBeLessThanOrEqual(last)
            expect(death !== Number.POSITIVE_INFINITY || last === length - 1).toBe(true)
          }
        },
      ),
      { numRuns: 300 },
    )
  })

  it('ends on drain after the item and repeats none, however often it is drained', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat({ max: 10 }),
        fc.array(fc.nat({ max: 10 }), { maxLength: 8 }),
        fc.boolean(),
        async (length, drains, isSlow) => {
          const store = emptyStore()
          const seen: number[] = []
          for (const drainAt of [...drains, Number.POSITIVE_INFINITY]) {
            const life = live(store)
            let left = drainAt
            const items = range(length)
            const work = async (): Promise<void> => {
              for await (const item of life.context.iterate(isSlow ? slowly(items) : items, {
                save: (last) => last,
              })) {
                seen.push(item)
                if (left-- === 0) life.drain()
              }
            }
            const over = await work().then(
              () => true,
              (error: { code?: string }) => error.code !== 'JOB_INTERRUPTED',
            )
            if (over) break
          }
          expect(seen).toEqual(range(length))
        },
      ),
      { numRuns: 200 },
    )
  })

  it('saves about as often as it is told, not for each item', async () => {
    const store = emptyStore()
    const { context } = live(store)
    for await (const _ of context.iterate(slowly(range(10_000)), { save: (last) => last, everyMs: 5 }))
      continue
    expect(store.saves).toBeLessThan(200)
    const fresh = emptyStore()
    for await (const _ of live(fresh).context.iterate(range(100), { save: (last) => last })) continue
    expect(fresh.saves).toBe(0)
  })

  it('saves an item that is done also while the source lets it wait', async () => {
    const store = emptyStore()
    const life = live(store)
    async function* source(): AsyncGenerator<number> {
      yield 1
      while (store.saves === 0) {
        await pause(5)
        life.run.wake?.()
      }
    }
    for await (const _ of life.context.iterate(source(), { save: (last) => last, everyMs: 20 })) continue
    expect(store.checkpoint).toEqual({ value: 1, at: [1] })
  })

  it('does not save after a body that threw', async () => {
    const store = emptyStore()
    const { context } = live(store)
    const work = async (): Promise<void> => {
      for await (const item of context.iterate(range(5), { save: (last) => last, everyMs: 0 })) {
        if (item === 3) throw new Error('half done')
      }
    }
    await expect(work()).rejects.toThrow('half done')
    expect(covered(store)).toBe(3)
  })

  it('goes on in the loop that was under way, after the loops that were done', async () => {
    const store = emptyStore()
    const seen: string[] = []
    for (const drainAt of ['b1', 'none']) {
      const life = live(store)
      const work = async (): Promise<void> => {
        for (const name of ['a', 'b', 'c']) {
          for await (const item of life.context.iterate(range(3), { save: (last) => last })) {
            seen.push(`${name}${item}`)
            if (`${name}${item}` === drainAt) life.drain()
          }
        }
      }
      await work().catch(() => undefined)
    }
    expect(seen).toEqual(['a0', 'a1', 'a2', 'b0', 'b1', 'b2', 'c0', 'c1', 'c2'])
  })

  it('says so when the source has become shorter than what was done of it', async () => {
    const store = { ...emptyStore(), checkpoint: { value: 5, at: [5] } }
    const work = async (): Promise<void> => {
      for await (const _ of live(store).context.iterate(range(3))) continue
    }
    await expect(work()).rejects.toMatchObject({ code: 'JOB_CHECKPOINT_INVALID' })
  })
})

describe('an iteration', () => {
  it('closes its source when the body leaves, throws, or the run is stopped', async () => {
    for (const how of ['break', 'throw', 'stop', 'end']) {
      let closed = 0
      const life = live(emptyStore())
      async function* source(): AsyncGenerator<number> {
        try {
          yield* range(3)
        } finally {
          closed++
        }
      }
      const work = async (): Promise<void> => {
        for await (const _ of life.context.iterate(source())) {
          if (how === 'break') break
          if (how === 'throw') throw new Error('thrown')
          if (how === 'stop')
            stopRun(life.run, { kind: 'cancel', error: JOB_CANCELLED({ reason: 'x' }), atMs: 0 })
        }
      }
      const thrown = await work().then(
        () => undefined,
        (error: Error) => error.message,
      )
      expect(thrown).toBe({ throw: 'thrown', stop: 'The job was cancelled: x.' }[how])
      expect(closed).toBe(1)
    }
  })

  it('ends while its source lets it wait for ever', async () => {
    const life = live(emptyStore())
    let asked = false
    const source = {
      [Symbol.asyncIterator]: () => ({ next: () => ((asked = true), new Promise<never>(() => undefined)) }),
    }
    const work = (async () => {
      for await (const _ of life.context.iterate(source, { save: () => 1 })) never()
    })()
    await pause(1)
    expect(asked).toBe(true)
    life.drain()
    await expect(work).rejects.toMatchObject({ code: 'JOB_INTERRUPTED' })
  })

  it('lets others have the process although neither source nor body ever waits', async () => {
    const { context } = live(emptyStore())
    let turns = 0
    const timer = setInterval(() => turns++, 1)
    const until = performance.now() + 150
    function* source(): Generator<number> {
      while (performance.now() < until) yield 1
    }
    for await (const _ of context.iterate(source())) continue
    clearInterval(timer)
    expect(turns).toBeGreaterThan(2)
  })

  it('without a checkpoint goes on in a drain, since all would be done again', async () => {
    const life = live(emptyStore())
    const seen: number[] = []
    for await (const item of life.context.iterate(range(5))) {
      seen.push(item)
      life.drain()
    }
    expect(seen).toEqual(range(5))
  })

  it('of work without a row saves nothing and goes on in a drain', async () => {
    const store = emptyStore()
    const life = live(store, undefined, true)
    const seen: number[] = []
    for await (const item of life.context.iterate(range(3), { save: (last) => last, everyMs: 0 })) {
      seen.push(item)
      life.drain()
    }
    expect(seen).toEqual(range(3))
    expect(store.saves).toBe(0)
  })

  it('within another one is refused, since only one can be counted', async () => {
    const { context } = live(emptyStore())
    const work = async (): Promise<void> => {
      for await (const _ of context.iterate(range(2)))
        for await (const __ of context.iterate(range(2))) continue
    }
    await expect(work()).rejects.toMatchObject({ code: 'JOB_CONTEXT_MISUSED' })
  })

  it('passes on what the source throws, at its place', async () => {
    const { context } = live(emptyStore())
    const seen: number[] = []
    async function* source(): AsyncGenerator<number> {
      yield 1
      throw new Error('no more')
    }
    const work = async (): Promise<void> => {
      for await (const item of context.iterate(source())) seen.push(item)
    }
    await expect(work()).rejects.toThrow('no more')
    expect(seen).toEqual([1])
  })
})

describe('a checkpoint', () => {
  it.each([
    ['over 1 MiB', 'x'.repeat(1_100_000)],
    ['not JSON', 1n],
    ['a number that JSON would lose', Number.NaN],
  ])('that is %s is refused', async (_what, value) => {
    const { context } = live(emptyStore())
    await expect(context.save(value as number)).rejects.toMatchObject({ code: 'JOB_CHECKPOINT_INVALID' })
  })

  it('is not written any more once the run is fenced', async () => {
    const store = emptyStore()
    const { run, context } = live(store)
    run.fenced = true
    await expect(context.save(1)).rejects.toMatchObject({ code: 'JOB_INTERRUPTED' })
    await expect(context.transact(1, async () => undefined)).rejects.toMatchObject({
      code: 'JOB_INTERRUPTED',
    })
    expect(store.checkpoint).toBeUndefined()
  })

  it('and transactions need a row', async () => {
    const { context } = live(emptyStore(), undefined, true)
    const misused = { code: 'JOB_CONTEXT_MISUSED' }
    await expect(context.save(1)).rejects.toMatchObject(misused)
    await expect(context.transact(1, async () => undefined)).rejects.toMatchObject(misused)
    await expect(context.once(async () => 1)).rejects.toMatchObject(misused)
  })
})
