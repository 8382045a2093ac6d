export interface BatcherOptions<Item, Result> {
  /** Does the work for all items together; its results stand in the order of the items. */
  run(items: Item[]): Promise<Result[]>
  /** Most items in one batch. */
  maxItems: number
  /** Batches under way at once; more than one hides the wait for the store. */
  concurrency?: number
}

export interface Batcher<Item, Result> {
  /** Joins the next batch; settles with that item's own result, or with the error of its batch. */
  add(item: Item): Promise<Result>
  /** Items waiting or under way. */
  readonly pending: number
  /** Resolves when nothing is waiting or under way. */
  idle(): Promise<void>
}

/**
 * Joins concurrent calls into batches, clocked by the work itself: a lone call goes at once, and while a
 * batch is under way the next one fills. So there is no timer that adds latency when it is quiet.
 */
export function createBatcher<Item, Result>(options: BatcherOptions<Item, Result>): Batcher<Item, Result> {
  interface Waiter {
    item: Item
    resolve(result: Result): void
    reject(error: unknown): void
  }
  const concurrency = options.concurrency ?? 1
  let waiting: Waiter[] = []
  let underWay = 0
  let batches = 0
  let scheduled = false
  let idleWaiters: (() => void)[] = []

  const schedule = (): void => {
    if (scheduled || batches >= concurrency || waiting.length === 0) return
    scheduled = true
    // Everything that arrives in the same turn of the event loop shares the batch.
    setImmediate(() => {
      scheduled = false
      const batch = waiting.splice(0, options.maxItems)
      if (batch.length > 0) void runBatch(batch)
      schedule()
    })
  }

  const runBatch = async (batch: Waiter[]): Promise<void> => {
    batches++
    underWay += batch.length
    try {
      const results = await options.run(batch.map((waiter) => waiter.item))
      for (const [index, waiter] of batch.entries()) waiter.resolve(results[index] as Result)
    } catch (error) {
      for (const waiter of batch) waiter.reject(error)
    } finally {
      batches--
      underWay -= batch.length
      schedule()
      if (batches === 0 && waiting.length === 0) {
        for (const resolve of idleWaiters.splice(0)) resolve()
      }
    }
  }

  return {
    add: (item) =>
      new Promise<Result>((resolve, reject) => {
        waiting.push({ item, resolve, reject })
        schedule()
      }),
    get pending() {
      return waiting.length + underWay
    },
    idle: () =>
      batches === 0 && waiting.length === 0
        ? Promise.resolve()
        : new Promise((resolve) => idleWaiters.push(resolve)),
  }
}
