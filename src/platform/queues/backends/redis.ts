import { Queue, QueueKeys, RedisConnection, RedisQueueBackend } from 'bullmq'
import type { Clock } from '../../../core/clock.ts'
import { createRedis, type RedisClient, type RedisRole } from '../../redis.ts'
import { type BullmqBackend, createBullmqBackend } from './bullmq.ts'
import type { Engine, OpenedBackend, WorkerBackendOptions } from './engine.ts'
import { createRedisCommands } from './redis-commands.ts'
import { createRedisExchange } from './redis-exchange.ts'
import { createRedisRoom } from './redis-room.ts'

export interface RedisBackendOptions {
  url: string
  clock: Clock
  /** Connection troubles, which heal by themselves. */
  onError(error: Error): void
  /** Begins every key; 'baton' unless said. */
  prefix?: string
}

/** BullMQ on Redis, Sentinel or Cluster. */
export function createRedisBackend(options: RedisBackendOptions): BullmqBackend {
  return createBullmqBackend(createRedisEngine(options), options.clock)
}

function createRedisEngine(options: RedisBackendOptions): Engine {
  // One hash tag a queue: on a Cluster all keys of a queue live on one node, and queues spread over the nodes.
  const prefix = (queue: string): string => `{${options.prefix ?? 'baton'}:${queue}}`
  const key = (queue: string, type: string): string => `${prefix(queue)}:${queue}:${type}`
  const client = connect(options, 'producer')
  const root = openRoot(client, options)
  const views = new Map<string, Queue>()

  const settled = firstAnswer(client)
  const commands = createRedisCommands(client, key)
  const room = createRedisRoom(client, options.clock, (queue) => key(queue, 'meta'))
  const whenSettled =
    <Args extends unknown[], Result>(work: (...args: Args) => Promise<Result>) =>
    async (...args: Args): Promise<Result> => {
      await settled
      return work(...args)
    }

  return {
    kind: 'redis',
    prefix,
    queue: whenSettled(async (name) => root.forQueue(name, prefix(name))),
    view: whenSettled(async (name) => {
      const view = views.get(name) ?? viewOf(name, prefix(name), root)
      views.set(name, view)
      return view
    }),
    open: (queue, worker) => openConsumer(options, queue, { prefix: prefix(queue), worker }),
    addPlain: whenSettled(commands.addPlain),
    assertRoom: whenSettled(room.assertFor),
    strayed: whenSettled(commands.strayed),
    active: whenSettled(commands.active),
    epoch: whenSettled(commands.epoch),
    mark: whenSettled(commands.mark),
    ping: whenSettled(commands.ping),
    close: async () => client.disconnect(),
  }
}

function connect(options: RedisBackendOptions, role: RedisRole): RedisClient {
  const client = createRedis(options.url, role)
  client.on('error', options.onError)
  return client
}

/** The end of the first attempt to connect, good or bad: what is asked before it would fail for no reason. */
const firstAnswer = (client: RedisClient): Promise<void> =>
  new Promise((resolve) => {
    for (const event of ['ready', 'close', 'end']) client.once(event, () => resolve())
  })

/**
 * BullMQ's operations over our producer connection. Neither version check nor wait for readiness: both would hang,
 * or fail once and for all, when Redis is away just then.
 */
function openRoot(client: RedisClient, options: RedisBackendOptions): RedisQueueBackend {
  const connection = new RedisConnection(client, {
    shared: true,
    blocking: false,
    skipVersionCheck: true,
    skipWaitingForReady: true,
  })
  const keys = new QueueKeys(options.prefix)
  const opts = { connection: {} }
  const root = new RedisQueueBackend(
    connection,
    '-',
    keys.getKeys('-'),
    (type) => keys.toKey('-', type),
    opts,
  )
  root.on('error', options.onError)
  return root
}

function viewOf(name: string, prefix: string, root: RedisQueueBackend): Queue {
  const queue = new Queue(
    name,
    { connection: {}, prefix, skipMetasUpdate: true },
    () => root.forQueue(name, prefix) as RedisQueueBackend,
  )
  queue.on('error', ignore)
  return queue
}

async function openConsumer(
  options: RedisBackendOptions,
  queue: string,
  { prefix, worker }: { prefix: string; worker: WorkerBackendOptions },
): Promise<OpenedBackend> {
  const client = connect(options, 'consumer')
  const blockingClient = connect(options, 'blocking')
  const shared = { shared: false, skipVersionCheck: false }
  const keys = new QueueKeys(prefix)
  const opts = { connection: {}, prefix, ...worker }
  const backend = new RedisQueueBackend(
    new RedisConnection(client, { ...shared, blocking: false }),
    queue,
    keys.getKeys(queue),
    (type) => keys.toKey(queue, type),
    opts,
    new RedisConnection(blockingClient, { ...shared, blocking: true }),
  )
  // The worker listens too, but only as long as it lives: an error that nobody hears ends the process.
  backend.on('error', ignore)
  const exchange = createRedisExchange(client, {
    runner: worker.name,
    lockMs: worker.lockDuration,
    key: (type) => keys.toKey(queue, type),
  })
  return {
    backend,
    exchange,
    destroy: () => {
      client.disconnect()
      blockingClient.disconnect()
    },
  }
}

/** The same error was told by the client already. */
const ignore = (): void => undefined
