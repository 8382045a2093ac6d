import { type Batcher, createBatcher } from '../../core/batcher.ts'

/**
 * A batcher for statements on devices. Two callers for one device never share a statement: an UPDATE would
 * take only one of them.
 */
export function createDeviceBatcher<Item extends { device: string }, Result>(
  run: (items: Item[]) => Promise<Result[]>,
  concurrency = 2,
): Batcher<Item, Result> {
  return createBatcher<Item, Result>({
    maxItems: 256,
    concurrency,
    run: async (items) => {
      const results = new Map<Item, Result>()
      let rest = items
      while (rest.length > 0) {
        const firsts = new Map<string, Item>()
        for (const item of rest) if (!firsts.has(item.device)) firsts.set(item.device, item)
        const part = [...firsts.values()]
        for (const [index, result] of (await run(part)).entries()) results.set(part[index] as Item, result)
        rest = rest.filter((item) => !results.has(item))
      }
      return items.map((item) => results.get(item) as Result)
    },
  })
}
