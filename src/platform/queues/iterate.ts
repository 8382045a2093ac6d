import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Clock } from '../../core/clock.ts'
import { JOB_CHECKPOINT_INVALID } from './errors.ts'
import type { Items, IterateOptions, Source } from './job.ts'

/**
 * What a loop needs of its run. The protocol:
 *
 * 1. `yielded` is called before an item goes to the body. Whatever is saved from then on counts it as done: a
 *    checkpoint is made either between two items, or by the body itself, which knows what it has done.
 * 2. When the body comes back for the next item, a checkpoint is saved if it is time, and the loop ends if it
 *    has to. It never ends in the middle of an item, and it never saves after a body that threw.
 * 3. A run that goes on from a checkpoint leaves out exactly the items that it counts.
 *
 * So after a crash at any point the items after the last checkpoint come again, no other item does, and none is
 * left out. With `transact` in the body, each item's own writes and its checkpoint are one: then none comes again.
 */
export interface LoopHost<Checkpoint> {
  readonly clock: Clock
  /** Called first. @returns how many items the checkpoint covers */
  begin(): number
  /** Called last, however the loop ended. */
  end(): void
  /** The checkpoint of the run before, for a source that opens itself there. */
  readonly from: Checkpoint | undefined
  yielded(): void
  /** Whether the loop has to end between these two items. */
  mustEnd(): boolean
  /** Saves now; called only between two items. False: the store is away, try again later. */
  save(value: Checkpoint): Promise<boolean>
  /** What to throw when the loop has to end. */
  ending(): Error
  /** Is woken when `mustEnd` may have changed, and now and then; undefined: nobody waits. */
  onWake(callback: (() => void) | undefined): void
}

/** A body that never waits would keep the process from hearing of a stop, and from renewing its locks. */
const breatheMs = 20

export async function* iterate<T, Checkpoint>(
  source: Source<T, Checkpoint>,
  options: IterateOptions<T, Checkpoint>,
  host: LoopHost<Checkpoint>,
): AsyncGenerator<T, void, undefined> {
  const { clock } = host
  const covered = host.begin()
  const everyMs = options.everyMs ?? 1_000
  const puller = createPuller(open(source, host.from), host)
  let savedMs = clock.monotonicMs()
  let breathedMs = savedMs
  let left = typeof source === 'function' ? 0 : covered
  let unsaved: { last: T } | undefined

  const save = async (): Promise<void> => {
    if (!unsaved || !options.save) return
    if (await host.save(options.save(unsaved.last))) unsaved = undefined
    savedMs = clock.monotonicMs()
  }
  try {
    for (;;) {
      const nowMs = clock.monotonicMs()
      if (nowMs - breathedMs >= breatheMs) {
        await nextTurn()
        breathedMs = clock.monotonicMs()
      }
      if (unsaved && nowMs - savedMs >= everyMs) await save()
      if (host.mustEnd()) {
        await save()
        throw host.ending()
      }
      const next = await puller.pull()
      if (next === 'woken') continue
      if (next.done) break
      if (left > 0) {
        left--
        continue
      }
      unsaved = { last: next.value }
      host.yielded()
      yield next.value
    }
    if (left > 0) throw JOB_CHECKPOINT_INVALID({ reason: `it covers ${left} more items than the source has` })
  } finally {
    host.end()
    await puller.close()
  }
}

function open<T, Checkpoint>(
  source: Source<T, Checkpoint>,
  from: Checkpoint | undefined,
): Iterator<T> | AsyncIterator<T> {
  const items: Items<T> = typeof source === 'function' ? source(from) : source
  return Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]()
}

interface Puller<T> {
  /** The next item, or `woken` when there is something else to look at first. Then pull again. */
  pull(): Promise<Pulled<T>> | Pulled<T>
  /** Lets the source clean up, unless it is at its end. */
  close(): Promise<void>
}
type Pulled<T> = IteratorResult<T, unknown> | 'woken'
type Arrival<T> = { result: IteratorResult<T, unknown> } | { error: unknown }

function createPuller<T>(
  iterator: Iterator<T> | AsyncIterator<T>,
  host: Pick<LoopHost<unknown>, 'onWake'>,
): Puller<T> {
  let asked = false
  let over = false
  let arrival: Arrival<T> | undefined
  let wake: () => void = () => undefined

  const arrive = (came: Arrival<T>): void => {
    arrival = came
    wake()
  }
  const ask = (): void => {
    asked = true
    const coming = iterator.next()
    if ('then' in coming) {
      coming.then(
        (result) => arrive({ result }),
        (error: unknown) => arrive({ error }),
      )
    } else arrival = { result: coming }
  }
  const take = (): Pulled<T> => {
    if (!arrival) return 'woken'
    const came = arrival
    arrival = undefined
    asked = false
    over = 'error' in came || came.result.done === true
    if ('error' in came) throw came.error
    return came.result
  }
  // One slot, and not Promise.race with something long-lived: that would keep a reaction for every item.
  const wait = (): Promise<void> =>
    new Promise((resolve) => {
      wake = resolve
      host.onWake(resolve)
    })

  return {
    pull: () => {
      if (!asked) ask()
      return arrival ? take() : wait().then(take)
    },
    close: async () => {
      if (over || !iterator.return) return
      const closing = Promise.resolve(iterator.return())
      // A generator that still waits for its next item closes only after that: not ours to wait for.
      if (asked) closing.catch(() => undefined)
      else await closing
    },
  }
}
