import type { Clock } from '../../core/clock.ts'
import { withLimit } from '../../core/lifecycle.ts'
import { createRedis, type RedisClient, type RedisRole } from '../redis.ts'
import type { WakeBus } from '../wake-bus.ts'
import { assertShort, createChannels } from './channels.ts'

export interface RedisWakeBusOptions {
  url: string
  clock: Clock
  onError(error: unknown): void
  /** Begins every channel; 'baton' unless said. */
  prefix?: string
}

/** How often a connection that only listens is asked whether it still lives, and how long it may think, ms. */
const askEveryMs = 10_000
const answerWithinMs = 5_000

/** Redis pub/sub. Two connections: one that listens can do nothing else. */
export function createRedisWakeBus(options: RedisWakeBusOptions): WakeBus {
  const prefix = `${options.prefix ?? 'baton'}:wake:`
  const restored = new Set<() => void>()
  const closed = new AbortController()
  const publisher = connect(options, 'producer')
  const subscriber = connect(options, 'consumer')
  const channels = createChannels({
    open: async (channel) => void (await subscriber.subscribe(prefix + channel)),
    // Not waited for: while Redis is away the answer comes only with it, and a stop would use up its time. Commands of
    // one connection keep their order, so a subscribe that follows stands.
    close: async (channel) => {
      subscriber.unsubscribe(prefix + channel).catch((error: unknown) => {
        if (!closed.signal.aborted) options.onError(error)
      })
    },
    onError: options.onError,
  })
  subscriber.on('message', (channel, text) => channels.deliver(channel.slice(prefix.length), text))
  onReconnect(
    subscriber,
    async () => {
      const names = channels.names().map((name) => prefix + name)
      // ioredis subscribes again by itself, but does not say when that is done.
      if (names.length > 0) await subscriber.subscribe(...names)
      for (const callback of restored) callback()
    },
    options.onError,
  )
  void askNowAndThen(subscriber, options.clock, closed.signal)

  return {
    publish: async (channel, text) => {
      assertShort(text)
      await publisher.publish(prefix + channel, text)
    },
    subscribe: (channel, onText) => channels.subscribe(channel, onText),
    onRestored: (callback) => void restored.add(callback),
    close: async () => {
      closed.abort()
      publisher.disconnect()
      subscriber.disconnect()
    },
  }
}

function connect(options: RedisWakeBusOptions, role: RedisRole): RedisClient {
  const client = createRedis(options.url, role)
  client.on('error', options.onError)
  return client
}

function onReconnect(
  client: RedisClient,
  work: () => Promise<void>,
  onError: (error: unknown) => void,
): void {
  let isFirst = true
  client.on('ready', () => {
    if (!isFirst) work().catch(onError)
    isFirst = false
  })
}

/** A peer that vanished without a word would otherwise be listened to until the kernel gives up, minutes later. */
async function askNowAndThen(client: RedisClient, clock: Clock, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await clock.sleep(askEveryMs, signal)
    if (signal.aborted || client.status !== 'ready') continue
    await withLimit(client.ping(), answerWithinMs).catch(() => {
      if (!signal.aborted) client.disconnect(true)
    })
  }
}
