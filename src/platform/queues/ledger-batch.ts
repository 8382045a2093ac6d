import { createBatcher } from '../../core/batcher.ts'
import { codeOf, messageOf } from '../../core/errors.ts'
import { INPUT_INVALID } from './errors.ts'

type Settled<Result> = { result: Result } | { error: unknown }

export interface Joined<Item, Result> {
  add(item: Item): Promise<Result>
  readonly pending: number
  idle(): Promise<void>
}

/**
 * Joins concurrent calls into statements. When Postgres refuses a batch for its data, each item is tried by itself,
 * so that only the caller who brought the fault hears of it.
 */
export function joinCalls<Item, Result>(
  run: (items: Item[]) => Promise<Result[]>,
  options: { maxItems: number; concurrency: number },
): Joined<Item, Result> {
  const batcher = createBatcher<Item, Settled<Result>>({
    ...options,
    run: (items) => runIsolated(run, items),
  })
  return {
    add: async (item) => {
      const settled = await batcher.add(item)
      if ('error' in settled) throw settled.error
      return settled.result
    },
    get pending() {
      return batcher.pending
    },
    idle: () => batcher.idle(),
  }
}

async function runIsolated<Item, Result>(
  run: (items: Item[]) => Promise<Result[]>,
  items: Item[],
): Promise<Settled<Result>[]> {
  try {
    return (await runAgainOnDeadlock(() => run(items))).map((result) => ({ result }))
  } catch (error) {
    if (!isDataError(error)) throw error
    if (items.length === 1) return [{ error: asInputError(error) }]
  }
  const settled: Settled<Result>[] = []
  for (const item of items) settled.push(...(await runIsolated(run, [item])))
  return settled
}

/** SQLSTATE classes that blame the data: 22 data, 23 constraints, and what is nested deeper than the parser goes. */
export function isDataError(error: unknown): boolean {
  if (INPUT_INVALID.is(error)) return true
  const code = codeOf(error)
  return code !== undefined && (/^2[23][0-9A-Z]{3}$/.test(code) || code === '54001')
}

export const asInputError = (error: unknown): unknown =>
  INPUT_INVALID.is(error) ? error : INPUT_INVALID({ summary: messageOf(error) }, { cause: error })

/**
 * Two batches that meet in the same rows in another order end with one of them thrown out by Postgres, nothing
 * written: it is simply sent again.
 */
export async function runAgainOnDeadlock<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      const code = codeOf(error)
      if (attempt === 5 || (code !== '40P01' && code !== '40001')) throw error
    }
  }
}
