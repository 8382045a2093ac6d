import { Queue } from 'bullmq'
import { Redis } from 'ioredis'
import { createSystemClock } from '../../src/core/clock.ts'
import { newId } from '../../src/core/ids.ts'
import { insertPushes } from '../../src/domain/push/accept-rows.ts'
import { alarmQueue, createAlarms } from '../../src/domain/push/alarms.ts'
import { claimSends } from '../../src/domain/push/claim-rows.ts'
import { allShards } from '../../src/domain/push/shard.ts'
import { createLog } from '../../src/platform/log.ts'
import { createPostgres } from '../../src/platform/postgres/postgres.ts'
import { createRedisBackend } from '../../src/platform/queues/backends/redis.ts'
import { makeDevices } from './push-listens.ts'
import type { Measure } from './result.ts'
import type { Servers } from './servers.ts'

const pending = 1_000_000
const deviceCount = 100_000
/** Of raw BullMQ only a tenth is made; a million of them would take minutes and half a gigabyte. */
const rawJobs = 100_000

/** What a million pending timeouts cost, beside one delayed job of BullMQ for each. */
export async function measurePending(servers: Servers): Promise<Measure[]> {
  const redis = new Redis(servers.redisUrl)
  await redis.flushall()
  const usedBefore = await usedBytes(redis)
  const clock = createSystemClock()
  const onError = (): void => undefined
  const postgres = createPostgres({ url: servers.databaseUrl, max: 4, applicationName: 'bench', onError })
  const backend = createRedisBackend({ url: servers.redisUrl, clock, onError })
  const alarms = createAlarms({ backend, clock, log: createLog({ level: 'silent', process: 'bench' }) })
  await makeDevices(servers, 'pending', deviceCount)
  await postgres.query('TRUNCATE pushes')

  const startedAt = performance.now()
  let next = 0
  const fill = async (): Promise<void> => {
    while (next < pending) {
      const from = next
      next += 1_000
      const pushes = Array.from({ length: 1_000 }, (_none, n) => ({
        id: newId(clock.now()),
        to: { device: `pending-${(from + n) % deviceCount}` },
        payload: '{"text":"a short one"}',
        priority: true,
        ttlMs: 86_400_000,
        confirmMs: 300_000 + Math.round(Math.random() * 600_000),
      }))
      alarms.arm(
        (
          await insertPushes(
            postgres,
            pushes,
            pushes.map(() => 0),
          )
        ).due,
      )
    }
  }
  await Promise.all([fill(), fill()])
  const insertMs = performance.now() - startedAt
  // What lies within the horizon of the alarms at any time: as many again, due within the next minute.
  alarms.arm(
    Array.from({ length: 64 * 240 }, (_none, n) => ({
      shard: n % 64,
      dueAt: clock.now() + Math.floor(n / 64) * 250,
      saidAt: clock.now(),
    })),
  )
  await alarms.idle()
  const entries = await redis.zcard(await delayedKey(redis))
  const queueBytes = (await usedBytes(redis)) - usedBefore
  const { rows } = await postgres.query<{ bytes: string; n: string }>(
    `SELECT pg_total_relation_size('pushes')::text AS bytes, (SELECT count(*) FROM pushes)::text AS n`,
  )
  const rowBytes = Number(rows[0]?.bytes) / Number(rows[0]?.n)
  const sweepMs = await timeSweeps(postgres)
  await backend.close()
  await postgres.close()
  const raw = await measureRaw(redis, servers.redisUrl)
  redis.disconnect()
  return [
    {
      what: '1,000,000 pending timeouts: entries in the queue',
      ours: entries,
      peer: pending,
      unit: 'entries',
      ratio: pending / entries,
      note: 'at most, however many are pending',
    },
    {
      what: '1,000,000 pending timeouts: memory of Redis',
      ours: queueBytes / 2 ** 20,
      peer: (raw.bytesEach * pending) / 2 ** 20,
      unit: 'MiB',
      ratio: (raw.bytesEach * pending) / queueBytes,
      note: `raw: ${Math.round(raw.bytesEach)} bytes each, of ${rawJobs.toLocaleString('en')}`,
    },
    { what: '1,000,000 pending timeouts: disk, row and indexes', ours: rowBytes, unit: 'bytes each' },
    {
      what: 'accepting them, rows in batches of 1,000',
      ours: (pending * 1_000) / insertMs,
      peer: raw.perSecond,
      unit: '1/s',
      ratio: (pending * 1_000) / insertMs / raw.perSecond,
    },
    { what: 'a sweep while 1,000,000 are pending and none is due', ours: sweepMs, unit: 'ms' },
  ]
}

async function timeSweeps(postgres: ReturnType<typeof createPostgres>): Promise<number> {
  const rounds = 20
  const claim = () =>
    claimSends(postgres, {
      shards: allShards,
      maxDevices: 128,
      lease: '00000000-0000-4000-8000-000000000000',
      leaseMs: 6_000,
      flood: { intervalMs: 1, burst: 1 },
    })
  await claim()
  const startedAt = performance.now()
  for (let round = 0; round < rounds; round++) await claim()
  return (performance.now() - startedAt) / rounds
}

async function measureRaw(redis: Redis, url: string): Promise<{ bytesEach: number; perSecond: number }> {
  await redis.flushall()
  const before = await usedBytes(redis)
  const connection = new Redis(url, { maxRetriesPerRequest: null })
  const queue = new Queue('raw', { connection })
  const startedAt = performance.now()
  for (let from = 0; from < rawJobs; from += 1_000) {
    await queue.addBulk(
      Array.from({ length: 1_000 }, (_none, n) => ({
        name: 'timeout',
        data: { device: `pending-${from + n}`, payload: { text: 'a short one' } },
        opts: { delay: 300_000 + Math.round(Math.random() * 600_000) },
      })),
    )
  }
  const perSecond = (rawJobs * 1_000) / (performance.now() - startedAt)
  const bytesEach = ((await usedBytes(redis)) - before) / rawJobs
  await queue.close()
  connection.disconnect()
  await redis.flushall()
  return { bytesEach, perSecond }
}

const usedBytes = async (redis: Redis): Promise<number> =>
  Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1] ?? 0)

async function delayedKey(redis: Redis): Promise<string> {
  const keys = await redis.keys(`*${alarmQueue}*:delayed`)
  return keys[0] ?? ''
}
