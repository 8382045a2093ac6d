import { type Batcher, createBatcher } from '../../core/batcher.ts'
import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { Entry, QueueBackend } from '../../platform/queues/backend.ts'
import type { DuePoint } from './accept-rows.ts'
import { allShards } from './shard.ts'

/** The queue of the alarms. */
export const alarmQueue = 'push-alarms'

export interface Alarms {
  /**
   * Sees to it that somebody looks at these shards when they are due. Returns at once; an alarm that cannot be
   * added is found by the sweep.
   */
  arm(points: DuePoint[]): void
  /** Resolves when all that was armed stands in the queue, or failed to. */
  idle(): Promise<void>
}

export interface AlarmsOptions {
  backend: QueueBackend
  clock: Clock
  log: Log
}

const tickMs = 250
/** What is due now shares an alarm of this width, over all shards. */
const nowTickMs = 25
/** An entry that fires sooner might be running already when it is added, and would swallow the addition. */
const marginMs = 5
/** What is due later needs no entry: the sweep comes round often enough. Keeps the queue small. */
const horizonMs = 60_000
/** Entries that were added lately, so that a busy process does not add the same one a thousand times. */
const memory = 20_000

/**
 * Shards share alarms in so many groups: enough for several workers to begin at once (more are called when there is
 * much to do), and few enough that a busy site makes 16 entries a second and not 256.
 */
const groupCount = 4
const groupOf = (shard: number): number => shard % groupCount
const groups = Array.from({ length: groupCount }, (_none, group) =>
  allShards.filter((shard) => groupOf(shard) === group),
)

/** Which shards an alarm is for. Undefined: not the id of an alarm. */
export function shardsOfAlarm(id: string): readonly number[] | undefined {
  const match = /^alarm-(now|\d+)-\d+$/.exec(id)
  if (!match) return undefined
  return match[1] === 'now' ? allShards : groups[Number(match[1])]
}

export function createAlarms({ backend, clock, log }: AlarmsOptions): Alarms {
  const added = new Map<string, number>()

  const batcher: Batcher<Entry, void> = createBatcher({
    maxItems: 500,
    concurrency: 1,
    run: async (entries) => {
      const now = clock.monotonicMs()
      await backend.add(
        alarmQueue,
        entries.map((entry) => ({ ...entry, delayMs: Math.max(0, Math.round(entry.delayMs - now)) })),
      )
      return entries.map(() => undefined)
    },
  })

  /** True when this entry was not added lately. */
  const remember = (id: string, firesAt: number): boolean => {
    const known = added.get(id)
    if (known !== undefined) return false
    if (added.size >= memory) for (const old of [...added.keys()].slice(0, memory / 2)) added.delete(old)
    added.set(id, firesAt)
    return true
  }

  return {
    arm: (points) => {
      const now = clock.monotonicMs()
      for (const point of points) {
        const alarm = alarmOf(point)
        if (alarm.inMs > horizonMs || !remember(alarm.id, now + alarm.inMs)) continue
        // delayMs holds the monotonic instant until the batch is on its way: a batch may have to wait.
        const entry: Entry = { id: alarm.id, name: 'alarm', delayMs: now + alarm.inMs, priority: 0 }
        batcher.add(entry).catch((error: unknown) => {
          added.delete(alarm.id)
          log.debug(
            { alarm: alarm.id, reason: messageOf(error) },
            'an alarm could not be set; the sweep looks',
          )
        })
      }
    },
    idle: () => batcher.idle(),
  }
}

function alarmOf({ shard, dueAt, saidAt }: DuePoint): { id: string; inMs: number } {
  if (dueAt - saidAt < nowTickMs) {
    const tick = Math.ceil((Math.max(dueAt, saidAt) + marginMs) / nowTickMs)
    return { id: `alarm-now-${tick}`, inMs: tick * nowTickMs - saidAt }
  }
  // The end of the tick that it falls into, so that nothing is sent early.
  let tick = Math.floor(dueAt / tickMs) + 1
  if (tick * tickMs - saidAt < marginMs) tick += 1
  return { id: `alarm-${groupOf(shard)}-${tick}`, inMs: tick * tickMs - saidAt }
}
