import path from 'node:path'
import { sha256 } from '../../../core/digest.ts'
import { openVersion } from '../../../domain/state/store.ts'
import { freePort } from '../../../platform/free-port.ts'
import { createPostgres, type Postgres } from '../../../platform/postgres/postgres.ts'
import { release } from '../../release.ts'
import { type WebClient, waitUntilReady } from '../../web-client.ts'
import { type Scene, type Stage, until } from '../stage.ts'
import { type Accepted, type SiteLoad, sitePhones, startSiteLoad, statePath } from './site-load.ts'

interface Site {
  name: string
  client: WebClient
  postgres: Postgres
}

interface SyncView {
  site: { pending: { changes: number }; seeding: { types: { done: boolean }[] } }
  replicas: { lag: { changes: number } }[]
}

interface FailOver {
  phase: string
  error: { message: string } | null
  refusedMs?: number
  finishedAt: string | null
}

/** Another database with processes of its own follows this one, and takes over while clients write. */
export const secondSite: Scene = {
  title: 'A second site follows, and takes over while clients write',
  async play(stage) {
    if (!stage.server) {
      stage.say('DATABASE_URL names a server that is not ours to make a second database on: left out')
      return
    }
    const first: Site = { name: 'main', client: stage.client, postgres: stage.postgres }
    const second = await openSecond(stage)
    await follow(stage, first, second)
    const load = startSiteLoad(first.client, second.client)
    const watch = watchOpen(first, second)
    try {
      await takeOver(stage, { from: first, to: second, load })
    } finally {
      await Promise.all([load.stop(), watch.stop()])
    }
    stage.promise(
      `the two were never open at once (${watch.looks()} looks)`,
      watch.looks() > 0 && watch.both() === 0,
    )
    await expectAll(stage, second, load.accepted)
    await expectEffects(stage, [first, second], load.accepted)
    await expectFollower(stage, { leader: second, follower: first })
  },
}

async function openSecond(stage: Stage): Promise<Site> {
  const url = new URL(stage.databaseUrl)
  url.pathname = '/baton_second'
  await stage.postgres.query('CREATE DATABASE baton_second')
  await release(url.href)
  const postgres = createPostgres({
    url: url.href,
    max: 2,
    applicationName: 'baton demo',
    onError: () => undefined,
  })
  stage.atEnd(() => postgres.close())
  await postgres.query('CREATE TABLE demo_effects (scene text NOT NULL, n integer NOT NULL)')
  const port = await freePort()
  const settings = {
    SITE: 'second',
    DATABASE_URL: url.href,
    // Queues of two sites must not meet: this one has its own on Postgres.
    REDIS_URL: '',
    PORT: String(port),
    BODY_STORES: ['c', 'd'].map((each) => `file:${path.join(stage.folder, `bodies-${each}`)}`).join(),
    WORKER_PROCESSES: '1',
  }
  stage.start('web', settings)
  stage.start('worker', settings)
  const client = stage.connect(`http://127.0.0.1:${port}`)
  if (!(await waitUntilReady(client.address, 30_000))) throw new Error('the second site did not become ready')
  stage.say(`dashboard of the second site: ${client.address}/dashboard`)
  return { name: 'second', client, postgres }
}

/** Jobs, devices, pushes, bodies, and the states of phones. */
const copiedTypes = 5

/** Each site is told of the other, and what the first one has is copied. */
async function follow(stage: Stage, first: Site, second: Site): Promise<void> {
  // Rolled back to the old store, the scene before has left this one closed; nobody uses the old one any more.
  await first.postgres.query('UPDATE state_gate SET version = $1', [openVersion])
  for (const phone of sitePhones) await first.client.call('PUT', `/v1/devices/${phone}`, { transports: [] })
  const begunAt = performance.now()
  const register = (at: Site, other: Site): Promise<unknown> =>
    at.client.call('PUT', `/v1/replicas/${other.name}`, { url: other.client.address, key: stage.key })
  await register(first, second)
  await until('the second site to follow', 20_000, async () => (await stateOf(second)).role === 'replica')
  await register(second, first)
  const count = await until('the second site to have everything', 60_000, async () => {
    const { site, replicas } = await first.client.call<SyncView>('GET', '/v1/replicas')
    // A type is in this list only once its turn has come.
    const handedOver = site.seeding.types.filter(({ done }) => done).length
    if (handedOver < copiedTypes || site.pending.changes > 0 || replicas[0]?.lag.changes !== 0)
      return undefined
    const [here, there] = await Promise.all([first, second].map(objectsOf))
    return here === there && here
  })
  const ms = Math.round(performance.now() - begunAt)
  stage.promise(`the second site had all ${count} jobs, devices, pushes and bodies after ${ms} ms`, true)
}

const objectsOf = async ({ postgres }: Site): Promise<number> => {
  const { rows } = await postgres.query<{ count: number }>(
    `SELECT ((SELECT count(*) FROM jobs) + (SELECT count(*) FROM devices) + (SELECT count(*) FROM pushes)
       + (SELECT count(*) FROM bodies))::int AS count`,
  )
  return rows[0]?.count ?? 0
}

async function stateOf({ postgres }: Site): Promise<{ role: string; intake: string }> {
  const { rows } = await postgres.query<{ role: string; intake: string }>('SELECT role, intake FROM site')
  return rows[0] ?? { role: 'none', intake: 'none' }
}

async function takeOver(
  stage: Stage,
  { from, to, load }: { from: Site; to: Site; load: SiteLoad },
): Promise<void> {
  await until('the load', 20_000, async () => load.rounds() >= 8)
  stage.say(`soft fail-over to the site ${to.name}`)
  await from.client.call('POST', '/v1/fail-over', { mode: 'soft', to: to.name })
  const over = await until('the fail-over', 90_000, async () => {
    const { failOver } = await from.client.call<{ failOver: FailOver | null }>('GET', '/v1/fail-over')
    return failOver?.finishedAt ? failOver : undefined
  })
  if (over.error) stage.say(over.error.message)
  const before = load.rounds()
  await until('the new leader to take writes', 20_000, async () => load.rounds() >= before + 8)
  stage.promise(
    `the second site took over: writes were refused for ${over.refusedMs} ms; nothing was accepted for ${Math.round(load.longestPauseMs())} ms at most`,
    over.phase === 'done',
  )
}

/** Looks at both rows without a pause. */
function watchOpen(a: Site, b: Site) {
  let going = true
  let looks = 0
  let both = 0
  const isOpen = async (site: Site): Promise<boolean> => (await stateOf(site)).intake === 'open'
  const watching = (async () => {
    while (going) {
      looks++
      // A site that is open before and after a look at the other one was open during it: each opens once at most.
      if ((await isOpen(a)) && (await isOpen(b)) && (await isOpen(a))) both++
      if ((await isOpen(b)) && (await isOpen(a)) && (await isOpen(b))) both++
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  })()
  watching.catch(() => undefined)
  return {
    looks: () => looks,
    both: () => both,
    stop: async () => {
      going = false
      await watching
    },
  }
}

/** Everything that either site has accepted is at this one. */
async function expectAll(stage: Stage, { client, postgres }: Site, accepted: Accepted): Promise<void> {
  const { jobs, pushes, bodies, states } = accepted
  const missing = async (table: 'jobs' | 'pushes', ids: string[]): Promise<number> => {
    const sql = `SELECT count(*)::int AS count FROM ${table} WHERE id = ANY($1::uuid[])`
    const { rows } = await postgres.query<{ count: number }>(sql, [ids])
    return ids.length - (rows[0]?.count ?? 0)
  }
  let lost = (await missing('jobs', jobs)) + (await missing('pushes', pushes))
  for (const id of bodies) if (sha256(await client.bytes(`/v1/bodies/${id}`)) !== id) lost++
  for (const [phone, state] of states) {
    if (Buffer.from(await client.bytes(statePath(phone))).toString() !== state) lost++
  }
  stage.promise(
    `it has all that was accepted meanwhile: ${jobs.length} jobs, ${pushes.length} pushes, ${bodies.length} bodies, ${states.size} states; ${lost} lost`,
    lost === 0 && jobs.length > 0,
  )
}

async function expectEffects(stage: Stage, sites: Site[], { jobs }: Accepted): Promise<void> {
  const sql = `SELECT n FROM demo_effects WHERE scene = 'second-site'`
  const effects = async (): Promise<number[]> => {
    const found = await Promise.all(sites.map(({ postgres }) => postgres.query<{ n: number }>(sql)))
    return found.flatMap(({ rows }) => rows.map(({ n }) => n))
  }
  const all = await until('the jobs to run', 30_000, async () => {
    const found = await effects()
    return new Set(found).size >= jobs.length && found
  })
  stage.promise(
    `each of these jobs ran once, at one of the two (${all.length} rows)`,
    all.length === jobs.length,
  )
}

async function expectFollower(
  stage: Stage,
  { leader, follower }: { leader: Site; follower: Site },
): Promise<void> {
  const [phone = ''] = sitePhones
  const { role, intake } = await stateOf(follower)
  const writtenAt = performance.now()
  await leader.client.put(statePath(phone), Buffer.from('written to the new leader'))
  await until('the old leader to follow', 20_000, async () => {
    const state = await follower.client.bytes(statePath(phone))
    return Buffer.from(state).toString() === 'written to the new leader'
  })
  const ms = Math.round(performance.now() - writtenAt)
  stage.promise(
    `the old leader follows (${role}, ${intake}): what was written to the new one was there after ${ms} ms`,
    role === 'replica' && intake === 'closed',
  )
}
