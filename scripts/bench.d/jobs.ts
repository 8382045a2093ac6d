import { fileURLToPath } from 'node:url'
import { Queue } from 'bullmq'
import { Redis } from 'ioredis'
import { createSystemClock } from '../../src/core/clock.ts'
import { createPostgres } from '../../src/platform/postgres/postgres.ts'
import { createAcceptance } from '../../src/platform/queues/accept.ts'
import { createRedisBackend } from '../../src/platform/queues/backends/redis.ts'
import { createLedger } from '../../src/platform/queues/ledger-postgres.ts'
import { jobs } from './bench-jobs.ts'
import { load, post } from './load.ts'
import { type BenchResult, type Measure, median, rate } from './result.ts'
import { type Servers, start, startServers } from './servers.ts'

const connections = 64
const acceptMs = 4_000
const rounds = 3
const preloaded = 20_000
const key = 'bench-key-0123456789'
const payload = { body: 'x'.repeat(64), column: 'country', n: 12_345 }

/** Acceptance and processing of jobs beside raw BullMQ, on the same servers. */
export async function run(): Promise<BenchResult> {
  const servers = await startServers()
  try {
    const measures = [await measureAcceptance(servers)]
    for (const processes of [1, 2]) measures.push(...(await measureProcessing(servers, processes)))
    return { name: 'jobs', measures }
  } finally {
    await servers.stop()
  }
}

const environmentOf = (servers: Servers): Record<string, string> => ({
  DATABASE_URL: servers.databaseUrl,
  REDIS_URL: servers.redisUrl,
  BATON_SECRET: 'bench-secret-0123456789',
  BATON_API_KEYS: `producer:${key}`,
  BODY_STORES: `file:${servers.folder}/a,file:${servers.folder}/b`,
  JOBS_MODULE: fileURLToPath(new URL('./bench-jobs.ts', import.meta.url)),
  PORT: '0',
  HOST: '127.0.0.1',
  LOG_LEVEL: 'info',
})

async function measureAcceptance(servers: Servers): Promise<Measure> {
  const raw = start('./raw-web.ts', [], { REDIS_URL: servers.redisUrl })
  const ours = start('baton', ['web'], environmentOf(servers))
  const ports = [await raw.saw(/listening on (\d+)/), await ours.saw(/127\.0\.0\.1:(\d+)/)].map((match) =>
    Number(match[1]),
  )
  const body = JSON.stringify({ name: 'accepted', payload })
  const measure = async (port = 0, durationMs = acceptMs): Promise<number> => {
    const result = await load({ port, connections, durationMs, request: () => post('/v1/jobs', key, body) })
    const others = Object.keys(result.statuses).filter((status) => status !== '202')
    if (others.length > 0) throw new Error(`answers other than 202: ${JSON.stringify(result.statuses)}`)
    return result.perSecond
  }
  const [rawPort, ourPort] = ports
  await measure(rawPort, 2_000)
  await measure(ourPort, 2_000)
  const rates: { raw: number[]; ours: number[] } = { raw: [], ours: [] }
  for (let round = 0; round < rounds; round++) {
    rates.raw.push(await measure(rawPort))
    rates.ours.push(await measure(ourPort))
  }
  await Promise.all([raw.stop(), ours.stop()])
  await empty(servers)
  return rate('accept, durable, beside queue.add', median(rates.ours), median(rates.raw), { aim: 1 })
}

async function measureProcessing(servers: Servers, processes: number): Promise<Measure[]> {
  const measures: Measure[] = []
  // The first worker on a queue that the ledger does not know yet adds its jobs again, to be sure of them.
  for (const name of ['volatile', 'durable'] as const) {
    await processOurs(servers, name, { processes, concurrency: 10 })
  }
  for (const concurrency of [10, 50]) {
    const rates: Record<'raw' | 'volatile' | 'durable', number[]> = { raw: [], volatile: [], durable: [] }
    for (let round = 0; round < rounds; round++) {
      rates.raw.push(await processRaw(servers, processes, concurrency))
      rates.volatile.push(await processOurs(servers, 'volatile', { processes, concurrency }))
      rates.durable.push(await processOurs(servers, 'durable', { processes, concurrency }))
    }
    const raw = median(rates.raw)
    const at = `${processes} process${processes > 1 ? 'es' : ''}, ${concurrency} at once`
    measures.push(rate(`run, durable: false, ${at}`, median(rates.volatile), raw, { aim: 0.9 }))
    measures.push(rate(`run, with the ledger, ${at}`, median(rates.durable), raw, { aim: 0.75 }))
  }
  return measures
}

async function processRaw(servers: Servers, processes: number, concurrency: number): Promise<number> {
  const connection = new Redis(servers.redisUrl, { maxRetriesPerRequest: null })
  const queue = new Queue('raw', { connection })
  for (let from = 0; from < preloaded; from += 1_000) {
    await queue.addBulk(Array.from({ length: 1_000 }, () => ({ name: 'raw', data: payload })))
  }
  const left = async (): Promise<number> => queue.getJobCountByTypes('waiting', 'active')
  const worker = start('./raw-worker.ts', [], {
    REDIS_URL: servers.redisUrl,
    RAW_PROCESSES: String(processes),
    WORKER_CONCURRENCY: String(concurrency),
  })
  const perSecond = await timeDrain(left)
  await worker.stop()
  await queue.close()
  connection.disconnect()
  return perSecond
}

async function processOurs(
  servers: Servers,
  name: 'volatile' | 'durable',
  { processes, concurrency }: { processes: number; concurrency: number },
): Promise<number> {
  const clock = createSystemClock()
  const onError = (): void => undefined
  const postgres = createPostgres({ url: servers.databaseUrl, max: 4, applicationName: 'bench', onError })
  const backend = createRedisBackend({ url: servers.redisUrl, clock, onError })
  const ledger = createLedger({ postgres, clock })
  const acceptance = createAcceptance({ postgres, ledger, backend, clock, onError })
  const job = jobs.find((each) => each.name === name)
  if (!job) throw new Error(`no job ${name}`)
  for (let from = 0; from < preloaded; from += 1_000) {
    await acceptance.accept(Array.from({ length: 1_000 }, () => ({ job, payload })))
  }
  await acceptance.idle()
  const left = async (): Promise<number> => {
    const counts = await backend.counts(name)
    return counts.waiting + counts.active
  }
  const worker = start('baton', ['worker'], {
    ...environmentOf(servers),
    WORKER_PROCESSES: String(processes),
    WORKER_CONCURRENCY: String(concurrency),
    WORKER_QUEUES: name,
  })
  const perSecond = await timeDrain(left)
  await worker.stop()
  await postgres.query('TRUNCATE jobs')
  await backend.close()
  await postgres.close()
  return perSecond
}

/** From a twentieth of the jobs done to the last of them, so that the start of the processes does not count. */
async function timeDrain(left: () => Promise<number>): Promise<number> {
  let begunAt = 0
  let begunWith = 0
  for (;;) {
    const now = await left()
    if (begunAt === 0 && now < preloaded * 0.95) {
      begunAt = performance.now()
      begunWith = now
    }
    if (now === 0) return begunWith / ((performance.now() - begunAt) / 1_000)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** What was accepted and is not run would be in the way of what follows. */
async function empty(servers: Servers): Promise<void> {
  const redis = new Redis(servers.redisUrl)
  await redis.flushall()
  redis.disconnect()
  const postgres = createPostgres({
    url: servers.databaseUrl,
    max: 1,
    applicationName: 'bench',
    onError: () => undefined,
  })
  await postgres.query('TRUNCATE jobs')
  await postgres.close()
}
