import type { Clock } from '../../../core/clock.ts'
import { type BatonError, messageOf } from '../../../core/errors.ts'
import { withLimit } from '../../../core/lifecycle.ts'
import type { Entry, QueueBackend } from '../backend.ts'
import { QUEUE_UNAVAILABLE } from '../errors.ts'
import { createConsumer } from './consumer.ts'
import type { Engine, Held, Strayed } from './engine.ts'
import { asView, isPlain, jobJson, plainOptions } from './entries.ts'

/** A queue backend that also shows BullMQ's own objects, for its dashboards. */
export interface BullmqBackend extends QueueBackend {
  /** The queue as BullMQ's `Queue`. Look, but change nothing: the rows would not know. */
  inspect(queue: string): Promise<unknown>
}

/** Longest wait for an answer of the engine on the path of a request, ms. */
const limitMs = 3_000
/** Entries in one command. The engine does nothing else meanwhile, so a bulk is cut. */
const maxBulk = 500

/** What BullMQ does alike on both engines. */
export function createBullmqBackend(engine: Engine, clock: Clock): BullmqBackend {
  const inTime = async <T>(work: () => Promise<T>, ms = limitMs): Promise<T> => {
    try {
      return await withLimit(work(), ms)
    } catch (error) {
      throw unavailable(error)
    }
  }
  return {
    engine: engine.kind,
    add: async (queue, entries) => {
      for (let from = 0; from < entries.length; from += maxBulk) {
        const bulk = entries.slice(from, from + maxBulk)
        await inTime(() => addBulk(engine, { queue, entries: bulk, epochMs: clock.now() }))
      }
    },
    mend: async (queue, entries) => {
      for (let from = 0; from < entries.length; from += maxBulk) {
        const bulk = { queue, entries: entries.slice(from, from + maxBulk), epochMs: clock.now() }
        await inTime(() => addBulk(engine, bulk))
        await inTime(() => mendBulk(engine, bulk))
      }
    },
    consume: (options) => createConsumer(engine, clock, options),
    remove: (queue, id) =>
      inTime(async () => {
        const view = await engine.view(queue)
        // To BullMQ an entry that is not there counts as removed.
        return (await view.getJob(id)) !== undefined && (await view.remove(id)) === 1
      }),
    handBack: (queue, runner) => inTime(() => handBack(engine, queue, runner)),
    counts: (queue) =>
      inTime(async () => {
        const counts = await (await engine.view(queue)).getJobCounts()
        return {
          waiting: (counts['waiting'] ?? 0) + (counts['prioritized'] ?? 0),
          delayed: counts['delayed'] ?? 0,
          active: counts['active'] ?? 0,
          failed: counts['failed'] ?? 0,
        }
      }),
    find: (queue, id) =>
      inTime(async () => {
        const job = await (await engine.view(queue)).getJob(id)
        return job && asView(job)
      }),
    epoch: (queue) => inTime(() => engine.epoch(queue)),
    mark: (queue) => inTime(() => engine.mark(queue)),
    ping: (ms) => inTime(() => engine.ping(), ms),
    inspect: (queue) => engine.view(queue),
    close: () => engine.close(),
  }
}

interface Bulk {
  queue: string
  entries: Entry[]
  epochMs: number
}

async function addBulk(engine: Engine, { queue, entries, epochMs }: Bulk): Promise<void> {
  await engine.assertRoom(queue, entries.length)
  const plain = entries.filter(isPlain)
  if (plain.length > 0) {
    await engine.addPlain(queue, {
      ids: plain.map((entry) => entry.id),
      names: plain.map((entry) => entry.name),
      options: plainOptions,
      epochMs: Math.round(epochMs),
    })
  }
  if (plain.length === entries.length) return
  const others = entries.filter((entry) => !isPlain(entry))
  const bullmq = await engine.queue(queue)
  await bullmq.addJobs(
    others.map((entry) => ({ job: jobJson(entry, epochMs), jobId: entry.id, parentKeyOpts: {} })),
  )
}

async function mendBulk(engine: Engine, bulk: Bulk): Promise<void> {
  const { queue, entries } = bulk
  const strayed: Strayed = await engine.strayed(
    queue,
    entries.filter((entry) => entry.delayMs < 1).map((entry) => entry.id),
  )
  if (strayed.late.length > 0) {
    const bullmq = await engine.queue(queue)
    // Those that became due meanwhile are not delayed any more, which is what we want.
    await Promise.allSettled(strayed.late.map((id) => bullmq.promote(id)))
  }
  if (strayed.locked.length > 0) await moveToWait(engine, queue, strayed.locked)
  if (strayed.lost.length > 0) {
    const view = await engine.view(queue)
    await Promise.all(strayed.lost.map((id) => view.remove(id)))
    const lost = new Set(strayed.lost)
    await addBulk(engine, { ...bulk, entries: entries.filter((entry) => lost.has(entry.id)) })
  }
}

async function handBack(engine: Engine, queue: string, runner: string): Promise<string[]> {
  return moveToWait(engine, queue, await engine.active(queue, runner))
}

async function moveToWait(engine: Engine, queue: string, held: Held[]): Promise<string[]> {
  const bullmq = await engine.queue(queue)
  const moved = await Promise.all(
    held.map(async ({ id, token }) => {
      try {
        // '0' passes over the lock: it has expired, and whoever had it is dead.
        await bullmq.moveJobFromActiveToWait(id, token ?? '0')
        return id
      } catch (error) {
        // The sweep or another master was quicker.
        if (/lock|missing/i.test(messageOf(error))) return undefined
        throw error
      }
    }),
  )
  return moved.filter((id) => id !== undefined)
}

export const unavailable = (error: unknown): BatonError =>
  QUEUE_UNAVAILABLE.is(error)
    ? error
    : QUEUE_UNAVAILABLE({ reason: messageOf(error) }, { cause: error, retryAfterMs: 1_000 })
