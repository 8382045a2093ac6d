import { backoffMs } from '../../core/backoff.ts'
import { createBatcher } from '../../core/batcher.ts'
import type { Clock } from '../../core/clock.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { Postgres } from '../postgres/postgres.ts'
import { connectOnce, type Session } from '../postgres/session.ts'
import type { WakeBus } from '../wake-bus.ts'
import { assertShort, createChannels } from './channels.ts'

export interface PostgresWakeBusOptions {
  postgres: Postgres
  clock: Clock
  onError(error: unknown): void
}

/**
 * One channel of Postgres for all of ours. Postgres compares each notification with everything that a connection
 * listens to, one by one, so a channel a device would make every wake slower with every device.
 */
const channelName = 'baton_wake'
/** How often a connection that only listens is asked whether it still lives, and how long it may think, ms. */
const askEveryMs = 10_000
const answerWithinMs = 5_000

/** LISTEN/NOTIFY: a connection of its own that listens, and statements of the pool that notify. */
export function createPostgresWakeBus({ postgres, clock, onError }: PostgresWakeBusOptions): WakeBus {
  const restored = new Set<() => void>()
  const closed = new AbortController()
  const channels = createChannels({ open: () => listening, close: async () => undefined, onError })
  // Each notifying commit takes a lock of the whole database, so concurrent wakes share one.
  const notices = createBatcher<string, void>({
    maxItems: 200,
    run: async (texts) => {
      await postgres.query({
        name: 'wake-notify',
        text: `SELECT pg_notify('${channelName}', notice) FROM unnest($1::text[]) AS notice`,
        values: [texts],
      })
      return []
    },
  })

  const { promise: listening, resolve: isListening } = Promise.withResolvers<void>()
  const listen = async (): Promise<Session> => {
    const session = await connectOnce(postgres.url, 'baton wake')
    session.client.on('notification', ({ payload = '' }) => {
      const end = payload.indexOf('\n')
      channels.deliver(payload.slice(0, end), payload.slice(end + 1))
    })
    await session.client.query(`LISTEN ${channelName}`)
    return session
  }
  const keepListening = async (): Promise<void> => {
    for (let failures = 0, times = 0; !closed.signal.aborted; ) {
      try {
        const session = await listen()
        failures = 0
        isListening()
        if (times++ > 0) for (const callback of restored) callback()
        await untilLost(session, clock, closed.signal)
      } catch (error) {
        onError(error)
        await clock.sleep(backoffMs(++failures, { baseMs: 100, maxMs: 1_000 }), closed.signal)
      }
    }
  }
  // Whoever still waits for the first connection when the bus is closed need not wait for ever.
  const running = keepListening().finally(isListening)

  return {
    publish: async (channel, text) => {
      assertShort(text)
      await notices.add(`${channel}\n${text}`)
    },
    subscribe: (channel, onText) => channels.subscribe(channel, onText),
    onRestored: (callback) => void restored.add(callback),
    close: async () => {
      closed.abort()
      await running
    },
  }
}

/** Resolves when the connection was lost or is not wanted any more, and has been closed. */
async function untilLost(session: Session, clock: Clock, signal: AbortSignal): Promise<void> {
  const lost = new AbortController()
  const stop = (): void => lost.abort()
  signal.addEventListener('abort', stop, { once: true })
  void session.ended.then(stop)
  try {
    while (!lost.signal.aborted && !signal.aborted) {
      await clock.sleep(askEveryMs, lost.signal)
      if (lost.signal.aborted) break
      // A peer that vanished without a word would otherwise be listened to until the kernel gives up.
      await withLimit(session.client.query('SELECT 1'), answerWithinMs).catch(stop)
    }
  } finally {
    signal.removeEventListener('abort', stop)
    await session.close()
  }
}
