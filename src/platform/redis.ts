import { Cluster, Redis, type RedisOptions } from 'ioredis'

/** A client of a single Redis, of a Sentinel group's master, or of a Cluster. */
export type RedisClient = Redis | Cluster

/** What a connection is for; it decides what happens while Redis is away. */
export type RedisRole =
  /** Fails at once while disconnected, so that nothing on the acceptance path hangs on a dead connection. */
  | 'producer'
  /** Waits and retries for ever: BullMQ's workers and subscribers sit through an outage. */
  | 'consumer'
  /** The same for a connection that waits for an entry, in commands of up to 5 s. */
  | 'blocking'

export interface RedisAddress {
  kind: 'single' | 'sentinel' | 'cluster'
  hosts: { host: string; port: number }[]
  /** Sentinel's name of the group. */
  name?: string
  username?: string
  password?: string
  db?: number
  tls: boolean
}

/** Reads `redis://`, `rediss://`, `redis+sentinel://h1,h2/name` and `redis+cluster://h1,h2`. */
export function parseRedisUrl(url: string): RedisAddress {
  const match = /^(rediss?)(?:\+(sentinel|cluster))?:\/\/(?:([^@/]*)@)?([^/?]+)(?:\/([^?]*))?/.exec(url)
  if (!match) throw new Error('not a Redis URL')
  const [, scheme, kind, login, hosts = '', path = ''] = match
  const defaultPort = kind === 'sentinel' ? 26_379 : 6_379
  const address: RedisAddress = {
    kind: kind === 'sentinel' || kind === 'cluster' ? kind : 'single',
    hosts: hosts.split(',').map((each) => parseHost(each, defaultPort)),
    tls: scheme === 'rediss',
  }
  if (login) {
    const colon = login.indexOf(':')
    const username = decodeURIComponent(colon < 0 ? login : login.slice(0, colon))
    if (username) address.username = username
    if (colon >= 0) address.password = decodeURIComponent(login.slice(colon + 1))
  }
  if (kind === 'sentinel') address.name = path || 'mymaster'
  else if (path) address.db = Number(path)
  return address
}

function parseHost(text: string, defaultPort: number): { host: string; port: number } {
  const match = /^(\[[^\]]+\]|[^:]+)(?::(\d+))?$/.exec(text.trim())
  if (!match) throw new Error(`not a host: ${text}`)
  return { host: (match[1] ?? '').replace(/^\[|\]$/g, ''), port: match[2] ? Number(match[2]) : defaultPort }
}

/**
 * How long a connection may owe an answer before it is given up, ms: one whose other side vanished without a word
 * looks open for a quarter of an hour.
 */
const silenceMs: Record<RedisRole, number> = { producer: 5_000, consumer: 5_000, blocking: 8_000 }

/** Makes a client that reconnects by itself, also after a fail-over. Attach an `error` listener to it. */
export function createRedis(url: string, role: RedisRole): RedisClient {
  const address = parseRedisUrl(url)
  const common = commonOptions(address, role)
  const [first] = address.hosts
  if (address.kind === 'cluster') {
    const cluster = new Cluster(address.hosts, {
      redisOptions: common,
      enableOfflineQueue: role !== 'producer',
      clusterRetryStrategy: (times) => Math.min(50 * times, 1_000),
    })
    cluster.on('+node', forgetOldSilence)
    return cluster
  }
  if (address.kind === 'sentinel') {
    const sentinels = { sentinels: address.hosts, name: address.name ?? 'mymaster' }
    return forgetOldSilence(new Redis({ ...common, ...sentinels }))
  }
  const client = new Redis({ ...common, host: first?.host ?? '127.0.0.1', port: first?.port ?? 6_379 })
  return forgetOldSilence(client)
}

/**
 * ioredis goes on measuring the silence of a connection that was closed, and then ends the one that came after it,
 * with all that is under way there.
 */
function forgetOldSilence(client: Redis): Redis {
  const measuring = client as unknown as { socketTimeoutTimer?: NodeJS.Timeout | undefined }
  client.on('close', () => {
    clearTimeout(measuring.socketTimeoutTimer)
    measuring.socketTimeoutTimer = undefined
  })
  return client
}

function commonOptions(address: RedisAddress, role: RedisRole): RedisOptions {
  return {
    ...(address.username ? { username: address.username } : {}),
    ...(address.password ? { password: address.password } : {}),
    ...(address.db === undefined ? {} : { db: address.db }),
    ...(address.tls ? { tls: {} } : {}),
    connectTimeout: 5_000,
    keepAlive: 10_000,
    socketTimeout: silenceMs[role],
    // A producer must hear at once that Redis is away; a consumer waits until it is back.
    enableOfflineQueue: role !== 'producer',
    maxRetriesPerRequest: role === 'producer' ? 1 : null,
    ...(role === 'producer' ? { commandTimeout: 5_000 } : {}),
    retryStrategy: (times) => Math.min(50 * times, 1_000),
    // After a fail-over the old master answers READONLY: reconnect and send the command again.
    reconnectOnError: (error) => (error.message.startsWith('READONLY') ? 2 : false),
  }
}
