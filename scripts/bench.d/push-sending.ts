import { readFileSync } from 'node:fs'
import { request } from 'node:https'
import { fileURLToPath } from 'node:url'
import { shardOf } from '../../src/domain/push/shard.ts'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { payload, type Subscription, subscriptions, vapidPair } from './push-crypto.ts'
import { type Measure, median, rate } from './result.ts'
import { type Servers, start } from './servers.ts'

export const key = 'bench-key-0123456789'
const perRound = 5_000
const rounds = 3
const batch = 500

export const environmentOf = (servers: Servers): Record<string, string> => ({
  DATABASE_URL: servers.databaseUrl,
  REDIS_URL: servers.redisUrl,
  BATON_SECRET: 'bench-secret-0123456789',
  BATON_API_KEYS: `operator:${key}`,
  BODY_STORES: `file:${servers.folder}/a,file:${servers.folder}/b`,
  PUSH_ALLOW_PRIVATE: '1',
  PORT: '0',
  HOST: '127.0.0.1',
  LOG_LEVEL: 'info',
})

/** From POST /v1/pushes over the rows to a push service, beside the package that only sends. */
export async function measureSending(servers: Servers): Promise<Measure[]> {
  const sink = start('./push-sink.ts', [], {})
  const port = Number((await sink.saw(/listening on (\d+)/))[1])
  const origin = `https://localhost:${port}`
  const vapid = vapidPair()
  const environment = {
    ...environmentOf(servers),
    FLOOD_INTERVAL_MS: '1',
    FLOOD_BURST: '1000',
    WORKER_PROCESSES: '2',
    VAPID_SUBJECT: vapid.subject,
    VAPID_PUBLIC_KEY: vapid.publicKey,
    VAPID_PRIVATE_KEY: vapid.privateKey,
    NODE_EXTRA_CA_CERTS: fileURLToPath(
      new URL('../../test/fixtures/tls/localhost.cert.pem', import.meta.url),
    ),
  }
  const [web, worker] = [start('baton', ['web'], environment), start('baton', ['worker'], environment)]
  const address = `http://127.0.0.1:${(await web.saw(/127\.0\.0\.1:(\d+)/))[1]}`
  await worker.saw(/ready|takes jobs|is up/i)
  const all = subscriptions(perRound, origin)
  await registerAll(servers, all)

  const rates: { ours: number[]; theirs: number[] } = { ours: [], theirs: [] }
  await sendOurs(address, origin, 1_000)
  for (let round = 0; round < rounds; round++) {
    const peer = start('./push-package.ts', [origin, String(perRound)], {})
    rates.theirs.push(Number((await peer.saw(/sent ([\d.]+) a second/))[1]))
    rates.ours.push(await sendOurs(address, origin, perRound))
  }
  await Promise.all([web.stop(), worker.stop(), sink.stop()])
  return [
    rate('accept to provider, rows and all, two worker processes', median(rates.ours), median(rates.theirs), {
      aim: 4,
      note: 'beside the web-push package alone against the same service; aim 1,500/s',
    }),
  ]
}

async function registerAll(servers: Servers, all: Subscription[]): Promise<void> {
  const postgres: Postgres = createPostgres({
    url: servers.databaseUrl,
    max: 1,
    applicationName: 'bench',
    onError: () => undefined,
  })
  const names = all.map((_each, n) => `bench-${n}`)
  await postgres.query('INSERT INTO devices (id, shard) SELECT * FROM unnest($1::text[], $2::smallint[])', [
    names,
    names.map(shardOf),
  ])
  await postgres.query(
    `INSERT INTO transports (device, position, kind, address, options)
     SELECT t.name, 0, 'webpush', t.address, t.keys FROM unnest($1::text[], $2::text[], $3::json[]) AS t(name, address, keys)`,
    [names, all.map((each) => each.endpoint), all.map((each) => JSON.stringify(each.keys))],
  )
  await postgres.query('ANALYZE devices')
  await postgres.query('ANALYZE transports')
  await postgres.close()
}

async function sendOurs(address: string, origin: string, count: number): Promise<number> {
  const before = await countOf(origin)
  const startedAt = performance.now()
  for (let from = 0; from < count; from += batch) {
    const body = Array.from({ length: batch }, (_none, n) => ({
      to: { device: `bench-${from + n}` },
      payload: JSON.parse(payload) as unknown,
      confirmMs: 0,
    }))
    await postPushes(address, body)
  }
  while ((await countOf(origin)) < before + count) {
    if (performance.now() - startedAt > 120_000) throw new Error('not all pushes came within 120 s')
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  return (count * 1_000) / (performance.now() - startedAt)
}

export async function postPushes(address: string, body: unknown[]): Promise<void> {
  const answer = await fetch(`${address}/v1/pushes`, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
  })
  const text = await answer.text()
  if (answer.status !== 202) throw new Error(`pushes were answered ${answer.status}: ${text.slice(0, 300)}`)
}

const ca = readFileSync(new URL('../../test/fixtures/tls/localhost.cert.pem', import.meta.url))

const countOf = (origin: string): Promise<number> =>
  new Promise((resolve, reject) => {
    request(`${origin}/count`, { ca }, (response) => {
      let text = ''
      response.on('data', (chunk: Buffer) => {
        text += chunk.toString()
      })
      response.on('end', () => resolve(Number(text)))
    })
      .on('error', reject)
      .end()
  })
