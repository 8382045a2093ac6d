import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Service } from '../../core/lifecycle.ts'
import type { Log } from '../../platform/log.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { Consumer, QueueBackend } from '../../platform/queues/backend.ts'
import { alarmQueue, shardsOfAlarm } from './alarms.ts'
import type { Dispatcher } from './dispatcher.ts'
import { prunePushes } from './prune.ts'
import { allShards } from './shard.ts'
import { refreshStatistics } from './statistics.ts'

/** What a worker process does for pushes: it answers alarms, and sweeps for what no alarm tells. */
export interface PushWorker extends Service {
  /** Claims nothing new; what is on its way goes on. */
  quiet(): void
  /** Quiet; resolves when what is on its way has been marked, or when the time for it is up. */
  drain(): Promise<void>
  /** Cloud pushes on their way. */
  readonly inFlight: number
}

export interface PushWorkerOptions {
  postgres: Postgres
  backend: QueueBackend
  dispatcher: Dispatcher
  /** Name of this process's consumers. */
  runner: string
  clock: Clock
  log: Log
  /** How long closed pushes stay, ms. */
  retentionMs: number
  /** Longest wait for sends under way at a stop, ms. */
  drainMs: number
}

/** Every process sweeps this often; what an alarm missed waits no longer. */
const sweepEveryMs = 2_000
const pruneEveryMs = 60_000

export function createPushWorker(options: PushWorkerOptions): PushWorker {
  const { backend, dispatcher, clock, log } = options
  const stopping = new AbortController()
  let consumer: Consumer | undefined
  let sweeping: Promise<void> | undefined

  const sweep = async (): Promise<void> => {
    let prunedAt = clock.monotonicMs() - pruneEveryMs * Math.random()
    while (!stopping.signal.aborted) {
      try {
        await dispatcher.fire(allShards)
        await refreshStatistics(options.postgres)
        if (clock.monotonicMs() - prunedAt > pruneEveryMs) {
          prunedAt = clock.monotonicMs()
          await prunePushes(options.postgres, options.retentionMs)
        }
      } catch (error) {
        log.warn({ reason: messageOf(error) }, 'the sweep for due pushes failed, and is tried again')
      }
      // Not in step with the other processes.
      await clock.sleep(sweepEveryMs * (0.75 + Math.random() / 2), stopping.signal)
    }
  }

  const quiet = (): void => {
    consumer?.quiet()
    stopping.abort()
  }
  const drain = async (): Promise<void> => {
    quiet()
    await dispatcher.drain(options.drainMs)
    await sweeping
  }

  return {
    start: async () => {
      consumer ??= backend.consume({
        queue: alarmQueue,
        runner: options.runner,
        concurrency: 16,
        process: async (delivery) => {
          const shards = shardsOfAlarm(delivery.id)
          // What cannot be claimed now is swept up: an alarm that waited for Postgres would only hold up others.
          if (shards) await dispatcher.fire(shards).catch(() => undefined)
          return { kind: 'finished' }
        },
        onLost: () => undefined,
        onError: (error) => log.debug({ reason: error.message }, 'the queue of the alarms has trouble'),
      })
      sweeping ??= sweep()
      await consumer.start()
    },
    quiet,
    drain,
    get inFlight() {
      return dispatcher.inFlight
    },
    stop: async () => {
      await drain()
      await consumer?.close(1_000)
      consumer = undefined
    },
  }
}
