import { fileURLToPath } from 'node:url'
import { release } from '../../src/cli/release.ts'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { load, post } from './load.ts'
import { type BenchResult, type Measure, median, rate } from './result.ts'
import { type Servers, type Started, start, startServers } from './servers.ts'

const key = 'bench-operator-0123456789'
const payload = { body: 'x'.repeat(64), column: 'country', n: 12_345 }
const body = JSON.stringify({ name: 'accepted', payload })
const connections = 64
const acceptMs = 4_000
const rounds = 3
const behind = 20_000
const lagged = 300

/** What a second site costs, how fast it catches up, beside logical replication of Postgres, and by how much it lags. */
export async function run(): Promise<BenchResult> {
  // The peer needs it, so that ours has it too: what is written is the same then.
  const servers = await startServers({ wal_level: 'logical' })
  try {
    const a = await openSite(servers, 'a')
    const b = await openSite(servers, 'b')
    const alone = await acceptance(a)
    await a.call('PUT', '/v1/replicas/b', { url: `http://127.0.0.1:${b.port}`, key })
    await caughtUp(a, b)
    const leading = await acceptance(a)
    await caughtUp(a, b)
    const measures = [rate('accept with a replica, beside a site that is alone', leading, alone)]
    measures.push(await measureCatchUp(servers, a, b), await measureLag(a, b))
    for (const site of [a, b]) await site.close()
    return { name: 'sync', measures }
  } finally {
    await servers.stop()
  }
}

interface Site {
  url: string
  port: number
  postgres: Postgres
  call(method: string, path: string, body?: unknown): Promise<unknown>
  close(): Promise<void>
}

async function openSite(servers: Servers, name: string): Promise<Site> {
  const url = await createDatabase(servers, `site_${name}`)
  await release(url)
  const environment = {
    DATABASE_URL: url,
    SITE: name,
    BATON_SECRET: 'bench-secret-0123456789',
    BATON_API_KEYS: `operator:${key}`,
    BODY_STORES: `file:${servers.folder}/${name}1,file:${servers.folder}/${name}2`,
    JOBS_MODULE: fileURLToPath(new URL('./bench-jobs.ts', import.meta.url)),
    // Of the queue on which nothing is accepted here: what is measured is the way to the other site.
    WORKER_QUEUES: 'volatile',
    WORKER_PROCESSES: '1',
    PORT: '0',
    HOST: '127.0.0.1',
  }
  const processes: Started[] = [start('baton', ['web'], environment), start('baton', ['worker'], environment)]
  const port = Number((await processes[0]?.saw(/127\.0\.0\.1:(\d+)/))?.[1])
  const postgres = connect(url)
  return {
    url,
    port,
    postgres,
    call: async (method, path, content) => {
      const response = await fetch(`http://127.0.0.1:${port}${path}`, {
        method,
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        ...(content === undefined ? {} : { body: JSON.stringify(content) }),
      })
      const text = await response.text()
      if (!response.ok) throw new Error(`${method} ${path} answered ${response.status}: ${text}`)
      return text === '' ? undefined : JSON.parse(text)
    },
    close: async () => {
      await postgres.close()
      for (const each of processes) await each.stop()
    },
  }
}

const connect = (url: string): Postgres =>
  createPostgres({ url, max: 4, applicationName: 'bench', onError: () => undefined })

async function createDatabase(servers: Servers, name: string): Promise<string> {
  const admin = connect(servers.databaseUrl)
  await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
  await admin.query(`CREATE DATABASE ${name} TEMPLATE template0`)
  await admin.close()
  const url = new URL(servers.databaseUrl)
  url.pathname = `/${name}`
  return url.href
}

async function acceptance({ port }: Site): Promise<number> {
  const rates: number[] = []
  const request = (): string => post('/v1/jobs', key, body)
  await load({ port, connections, durationMs: 1_000, request })
  for (let round = 0; round < rounds; round++) {
    const result = await load({ port, connections, durationMs: acceptMs, request })
    const others = Object.keys(result.statuses).filter((status) => status !== '202')
    if (others.length > 0) throw new Error(`answers other than 202: ${JSON.stringify(result.statuses)}`)
    rates.push(result.perSecond)
  }
  return median(rates)
}

const count = async (database: Postgres, table = 'jobs'): Promise<number> =>
  (await database.query<{ n: number }>(`SELECT count(*)::int AS n FROM ${table}`)).rows[0]?.n ?? 0

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

async function caughtUp(a: Site, b: Site): Promise<void> {
  const wanted = await count(a.postgres)
  while ((await count(b.postgres)) < wanted) await pause(50)
}

/** Jobs that were accepted while nothing was sent, until the last of them is on the other site. */
async function measureCatchUp(servers: Servers, a: Site, b: Site): Promise<Measure> {
  const [ours, peer]: [number[], number[]] = [[], []]
  for (let round = 0; round < rounds; round++) {
    await a.call('POST', '/v1/replicas/b/pause')
    // Whatever is under way comes to its end.
    await pause(3_500)
    const before = await count(b.postgres)
    for (let sent = 0; sent < behind; sent += 1_000) {
      await a.call(
        'POST',
        '/v1/jobs',
        Array.from({ length: 1_000 }, () => ({ name: 'accepted', payload })),
      )
    }
    const startedAt = await resume(a, b, before)
    await caughtUp(a, b)
    ours.push(behind / ((performance.now() - startedAt) / 1_000))
    peer.push(await logicalReplication(servers, a, round))
  }
  return rate('jobs caught up with, beside logical replication of the table', median(ours), median(peer))
}

/** @returns when the first of them came, so that the wait for the next look does not count */
async function resume(a: Site, b: Site, before: number): Promise<number> {
  await a.call('POST', '/v1/replicas/b/resume')
  while ((await count(b.postgres)) === before) await pause(5)
  return performance.now()
}

/** The same rows, inserted while the subscription is off. */
async function logicalReplication(servers: Servers, a: Site, round: number): Promise<number> {
  const [from, to] = [
    connect(await createDatabase(servers, `peer_from_${round}`)),
    connect(await createDatabase(servers, `peer_to_${round}`)),
  ]
  const table = `CREATE TABLE jobs (id uuid PRIMARY KEY, name text, queue text, payload json, context json,
    enqueued_at timestamptz, run_at timestamptz)`
  await Promise.all([from.query(table), to.query(table)])
  const slot = `bench_${round}`
  await from.query('CREATE PUBLICATION bench FOR TABLE jobs')
  await from.query(`SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`)
  await to.query(`CREATE SUBSCRIPTION bench CONNECTION '${from.url}' PUBLICATION bench
    WITH (create_slot = false, slot_name = '${slot}', enabled = false, copy_data = false)`)
  const { rows } = await a.postgres.query<{ rows: string }>(
    `SELECT json_agg(j)::text AS rows FROM (SELECT id, name, queue, payload, context, enqueued_at, run_at
       FROM jobs ORDER BY enqueued_at DESC LIMIT ${behind}) j`,
  )
  const all = JSON.parse(rows[0]?.rows ?? '[]') as unknown[]
  for (let at = 0; at < all.length; at += 1_000) {
    await from.query('INSERT INTO jobs SELECT * FROM json_populate_recordset(NULL::jobs, $1)', [
      JSON.stringify(all.slice(at, at + 1_000)),
    ])
  }
  await to.query('ALTER SUBSCRIPTION bench ENABLE')
  while ((await count(to)) === 0) await pause(2)
  const startedAt = performance.now()
  while ((await count(to)) < all.length) await pause(5)
  const perSecond = all.length / ((performance.now() - startedAt) / 1_000)
  await to.query('DROP SUBSCRIPTION bench')
  await Promise.all([from.close(), to.close()])
  return perSecond
}

/** From the answer 202 until the row is on the other site, one job every 10 ms. */
async function measureLag(a: Site, b: Site): Promise<Measure> {
  const sentAt = new Map<string, number>()
  const lags: number[] = []
  let sending = true
  const look = async (): Promise<void> => {
    while (sending || sentAt.size > 0) {
      const { rows } = await b.postgres.query<{ id: string }>(
        'SELECT id::text FROM jobs WHERE id = ANY ($1::uuid[])',
        [[...sentAt.keys()]],
      )
      for (const { id } of rows) {
        lags.push(performance.now() - (sentAt.get(id) ?? 0))
        sentAt.delete(id)
      }
      await pause(5)
    }
  }
  const looking = look()
  for (let n = 0; n < lagged; n++) {
    const { id } = (await a.call('POST', '/v1/jobs', { name: 'accepted', payload })) as { id: string }
    sentAt.set(id, performance.now())
    await pause(10)
  }
  sending = false
  await looking
  lags.sort((x, y) => x - y)
  const p99 = lags[Math.floor(lags.length * 0.99)] ?? 0
  return {
    what: 'a job from its 202 to the other site, half of them within',
    ours: median(lags),
    unit: 'ms',
    note: `p99 ${p99.toFixed(0)} ms`,
  }
}
