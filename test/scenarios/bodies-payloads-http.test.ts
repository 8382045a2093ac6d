import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { keepReferenced } from '../../jobs/bodies.ts'
import { createSystemClock } from '../../src/core/clock.ts'
import { sha256 } from '../../src/core/digest.ts'
import { createBodies } from '../../src/domain/bodies/bodies.ts'
import { createDirectoryStore } from '../../src/domain/bodies/stores/directory.ts'
import { createLog } from '../../src/platform/log.ts'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { testDatabase } from '../support/databases.ts'
import { hasNginx, startNginx } from '../support/nginx.ts'
import { atEndOfTest, eventually, projectRoot } from '../support/processes.ts'
import { openPushSite, operatorKey, producerKey } from '../support/push-site.ts'

const clock = createSystemClock()
const text = (bytes: number): string => randomBytes(bytes / 2).toString('base64')
const jobsModule = path.join(projectRoot, 'test/fixtures/jobs/digest.ts')

async function storesFolder(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'baton-payloads-'))
  atEndOfTest(() => rm(folder, { recursive: true, force: true }))
  return folder
}

it.each(['redis', 'postgres'] as const)(
  'on %s a large payload comes in by every door, and reaches its handler in another process as it was',
  async (engine) => {
    const folder = await storesFolder()
    const site = await openPushSite(engine, {
      BODY_STORES: `file:${folder}/a,file:${folder}/b`,
      JOBS_MODULE: jobsModule,
    })
    const web = await site.startWeb()
    await site.startWorker()
    const post = async (body: unknown, headers: Record<string, string> = {}) => {
      const reply = await web.call('POST', '/v1/jobs', { key: producerKey, body, headers })
      if (reply.status !== 202) throw new Error(reply.text)
      return reply
    }
    const payloads = Array.from({ length: 6 }, (_each, n) => ({ text: text(n === 2 ? 10 : 100 * 1_024) }))
    const jobOf = (n: number) => ({ name: 'digest', payload: payloads[n] })

    const single = (await post(jobOf(0))).json<{ id: string; state: string; name: string }>()
    expect(single).toEqual({ id: expect.any(String), name: 'digest', state: 'waiting' })
    const batch = (await post([jobOf(1), jobOf(2), jobOf(3)])).json<{ jobs: { id: string }[] }>()
    const key = { 'idempotency-key': 'once' }
    const first = await post(jobOf(4), key)
    const again = await post(jobOf(4), key)
    expect(again.text).toBe(first.text)
    const cli = await site.command(['jobs', 'enqueue', 'digest', JSON.stringify(payloads[5]), '--json'])
    expect(cli.code).toBe(0)

    const known = [single.id, ...batch.jobs.map(({ id }) => id), first.json<{ id: string }>().id]
    const rows = await eventually(
      async () => {
        const found = await site.query<{ id: string; result: string; bytes: number; outcome: string }>(
          'SELECT id, result, outcome, octet_length(payload::text) AS bytes FROM jobs ORDER BY id',
        )
        expect(found.map(({ outcome }) => outcome)).toEqual(Array(6).fill('completed'))
        return found
      },
      { timeoutMs: 30_000 },
    )
    expect(rows.map(({ result }) => result).sort()).toEqual(
      payloads.map((payload) => sha256(JSON.stringify(payload))).sort(),
    )
    expect(known.every((id) => rows.some((row) => row.id === id))).toBe(true)
    expect(Math.max(...rows.map(({ bytes }) => bytes))).toBeLessThan(500)

    // Whoever looks at a job sees what it was given, not where that lies.
    const shown = await site.command(['jobs', 'show', single.id])
    expect(JSON.parse(shown.stdout.join('\n'))).toMatchObject({ payload: payloads[0] })
    const retried = await web.call('POST', `/v1/jobs/${single.id}/retry`, { key: operatorKey })
    expect(retried.status).toBeLessThan(300)
    await eventually(async () => {
      const again = await site.query<{ retried: number; result: string }>(
        'SELECT retried, result FROM jobs WHERE id = $1',
        [single.id],
      )
      expect(again).toEqual([{ retried: 1, result: sha256(JSON.stringify(payloads[0])) }])
    })
  },
  120_000,
)

it('a large payload of a push reaches listens on every node, and a webhook if it has room', async () => {
  const folder = await storesFolder()
  const site = await openPushSite('redis', { BODY_STORES: `file:${folder}/a,file:${folder}/b` })
  const [one, other] = await Promise.all([site.startWeb(), site.startWeb()])
  await site.startWorker()
  const put = (device: string) =>
    one.call('PUT', `/v1/devices/${device}`, {
      body: { user: 'ann', transports: [{ kind: 'webhook', url: `${site.cloud.origin}/${device}` }] },
    })
  await Promise.all([put('phone'), put('tablet')])
  for (const [bytes, fits] of [
    [30_000, true],
    [400_000, false],
  ] as const) {
    const payload = { text: text(bytes) }
    const body = { to: { user: 'ann' }, payload, confirmMs: 0 }
    const key = { 'idempotency-key': `once-${bytes}` }
    const sent = await one.call('POST', '/v1/pushes', { body, headers: key })
    expect(sent.json()).toMatchObject({ devices: 2 })
    expect((await other.call('POST', '/v1/pushes', { body, headers: key })).text).toBe(sent.text)
    for (const device of ['phone', 'tablet']) {
      const heard = await other.call('GET', `/v1/listen?device=${device}&waitMs=5000`)
      expect(heard.json()).toMatchObject({ notifications: [{ payload }] })
    }
    await eventually(() => expect(site.cloud.received.length).toBe(2), { timeoutMs: 30_000 })
    for (const { body: got } of site.cloud.received.splice(0)) {
      const { data } = JSON.parse(got.toString()) as { data: Record<string, unknown> }
      expect([data['payload'], data['truncated']]).toEqual(fits ? [payload, undefined] : [undefined, true])
    }
  }
  expect(await site.query('SELECT max(octet_length(payload::text)) < 200 AS short FROM pushes')).toEqual([
    { short: true },
  ])
}, 60_000)

it('stores that hang hold up the requests with large payloads only, with an Idempotency-Key too', async () => {
  const silent = createServer(() => undefined).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  atEndOfTest(async () => void silent.close())
  const { port } = silent.address() as AddressInfo
  const store = `webdav+http://127.0.0.1:${port}`
  const site = await openPushSite('redis', {
    BODY_STORES: `${store}/a,${store}/b`,
    DATABASE_CONNECTIONS: '3',
  })
  const web = await site.startWeb()
  await web.call('PUT', '/v1/devices/phone', { body: { transports: [] } })
  const large = Array.from({ length: 8 }, (_each, n) =>
    web.call('POST', '/v1/pushes', {
      body: { to: { device: 'phone' }, payload: text(30_000) },
      headers: { 'idempotency-key': `large-${n}` },
    }),
  )
  await clock.sleep(1_000)
  const begunAt = clock.monotonicMs()
  const small = await web.call('POST', '/v1/pushes', { body: { to: { device: 'phone' }, payload: 1 } })
  expect(small.status).toBe(202)
  expect(clock.monotonicMs() - begunAt).toBeLessThan(1_500)
  expect((await Promise.all(large)).map(({ status }) => status)).toEqual(Array(8).fill(202))
}, 60_000)

it.skipIf(!hasNginx)(
  'a store that hangs costs a large payload no more than the way to its other copy',
  async () => {
    const [folder, nginx] = await Promise.all([storesFolder(), startNginx()])
    const site = await openPushSite('redis', { BODY_STORES: `webdav+${nginx.url.href},file:${folder}/b` })
    const web = await site.startWeb()
    await web.call('PUT', '/v1/devices/phone', { body: { transports: [] } })
    const payload = text(30_000)
    const sent = await web.call('POST', '/v1/pushes', { body: { to: { device: 'phone' }, payload } })
    expect(sent.status).toBe(202)
    const pid = Number(await readFile(path.join(nginx.root, '../../pid'), 'utf8'))
    process.kill(pid, 'SIGSTOP')
    atEndOfTest(async () => void process.kill(pid, 'SIGKILL'))
    const heard = await web.call('GET', '/v1/listen?device=phone&waitMs=0')
    expect(heard.json()).toMatchObject({ notifications: [{ payload }] })
  },
  60_000,
)

const source = (file: string): string => path.join(projectRoot, 'src', file)
const kills = 15
/** Accepts jobs with large payloads without end, four at a time, and tells each id when it has its answer. */
const producer = `
  import { randomBytes } from 'node:crypto'
  import { createPayloads } from '${source('cli/compose/payloads.ts')}'
  import { createSystemClock } from '${source('core/clock.ts')}'
  import { createReleasers } from '${source('core/lifecycle.ts')}'
  import { createLog } from '${source('platform/log.ts')}'
  import { createMetrics } from '${source('platform/metrics.ts')}'
  import { createPostgres } from '${source('platform/postgres/postgres.ts')}'
  import { createAcceptance } from '${source('platform/queues/accept.ts')}'
  import { createLedger } from '${source('platform/queues/ledger-postgres.ts')}'
  const [url, folder] = process.argv.slice(1)
  const clock = createSystemClock()
  const log = createLog({ level: 'silent', process: 'test' })
  const none = () => undefined
  const postgres = createPostgres({ url, max: 2, applicationName: 'payload crash', onError: none })
  const config = { bodyStores: ['file:' + folder + '/a', 'file:' + folder + '/b'] }
  const payloads = createPayloads({ config, clock, log, metrics: createMetrics(), postgres, releasers: createReleasers(none) })
  const backend = { add: async () => undefined, remove: async () => true }
  const acceptance = createAcceptance({ postgres, ledger: createLedger({ postgres, clock }), backend, clock, payloads, onError: none })
  const job = { name: 'digest', queue: 'default', attempts: 3, backoff: { baseMs: 1000, maxMs: 1000 }, durable: true }
  const client = async () => {
    for (;;) {
      const text = randomBytes(Math.floor(13_000 + Math.random() * 200_000)).toString('base64')
      const [accepted] = await acceptance.accept([{ job, payload: { text } }])
      process.stdout.write(accepted.id + '\\n')
    }
  }
  await Promise.all([client(), client(), client(), client()])`

it(`a producer that is killed ${kills} times leaves no row without its payload, and the sweep takes what no row has`, async () => {
  const folder = await storesFolder()
  const { url } = await testDatabase()
  const postgres = createPostgres({ url, max: 4, applicationName: 'crash test', onError: () => undefined })
  const stores = ['a', 'b'].map((name) => createDirectoryStore({ root: path.join(folder, name), clock }))
  const bodies = createBodies({
    stores,
    postgres,
    clock,
    log: createLog({ level: 'silent', process: 'test' }),
  })
  const answered: string[] = []
  for (let kill = 0; kill < kills; kill++) {
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', producer, url, folder], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let told = ''
    child.stdout.on('data', (lines: Buffer) => (told += lines.toString()))
    await once(child.stdout, 'data')
    await clock.sleep(Math.random() * 40)
    child.kill('SIGKILL')
    await once(child, 'close')
    answered.push(...told.split('\n').filter((id) => id.length === 36))
  }
  expect(answered.length).toBeGreaterThan(kills)
  const options = {
    retentionMs: 0,
    graceMs: 0,
    force: true,
    keepReferenced: (candidates: Set<string>) => keepReferenced(postgres, candidates),
  }
  await bodies.upkeep.sweep(options)
  const { removed } = await bodies.upkeep.sweep(options)
  const claims = await claimsOf(postgres)
  expect(answered.filter((id) => !claims.has(id))).toEqual([])
  for (const body of claims.values())
    expect(await bodies.repair(body)).toMatchObject({ written: [], failed: [] })
  expect((await bodies.upkeep.status()).bodies).toBe(new Set(claims.values()).size)
  console.log(JSON.stringify({ answered: answered.length, rows: claims.size, sweptAsOrphans: removed }))
  await bodies.close()
  await postgres.close()
}, 120_000)

async function claimsOf(postgres: Postgres): Promise<Map<string, string>> {
  const { rows } = await postgres.query<{ id: string; body: string }>(
    `SELECT id, payload->>'baton:payload' AS body FROM jobs`,
  )
  expect(rows.filter(({ body }) => body === null)).toEqual([])
  return new Map(rows.map(({ id, body }) => [id, body]))
}
