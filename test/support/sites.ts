import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { migrateQueues } from '../../src/platform/queues/migrate.ts'
import { testDatabase } from './databases.ts'
import { atEndOfTest, type BatonProcess, eventually, freePort, projectRoot, spawnBaton } from './processes.ts'
import { type Client, createClient, operatorKey, producerKey } from './push-site.ts'
import { startRedis } from './servers.ts'

/** One of two sites: a database, stores and processes of its own. */
export interface SiteOfTwo extends Client {
  name: string
  postgres: Postgres
  web: BatonProcess
  worker: BatonProcess
  /** Runs one command of this site to its end. */
  command(args: string[]): Promise<{ code: number | null; stdout: string[]; lines: readonly string[] }>
  startWorker(): BatonProcess
  /** Waits until it is so. */
  is(role: string, intake: string): Promise<void>
  state(): Promise<{ role: string; intake: string; epoch: number }>
  /** As an operator. @throws when it is refused */
  operate<T>(method: string, path: string, body?: unknown): Promise<T>
}

export interface TwoSites {
  a: SiteOfTwo
  b: SiteOfTwo
}

const secret = 'two-sites-secret-0123456789abcdef'
const patienceMs = 30_000

/** `a` leads, with its queues on Redis, and `b` follows, with its queues on Postgres; each knows the other. */
export async function openTwoSites(settings: Record<string, string> = {}): Promise<TwoSites> {
  const [a, b] = await Promise.all([openOne('a', true, settings), openOne('b', false, settings)])
  await a.operate('PUT', '/v1/replicas/b', { url: b.address, key: operatorKey })
  await b.is('replica', 'closed')
  await b.operate('PUT', '/v1/replicas/a', { url: a.address, key: operatorKey })
  await eventually(() => assertSeeded(a), { timeoutMs: patienceMs })
  return { a, b }
}

async function assertSeeded(site: SiteOfTwo): Promise<void> {
  const { rows } = await site.postgres.query<{ types: number }>(
    'SELECT count(*)::int AS types FROM sync_seeds WHERE done',
  )
  if (rows[0]?.types !== 5) throw new Error(`${rows[0]?.types} types are handed over`)
}

async function openOne(name: string, onRedis: boolean, settings: Record<string, string>): Promise<SiteOfTwo> {
  const [{ url }, redis, folder, port] = await Promise.all([
    testDatabase(),
    onRedis ? startRedis() : undefined,
    mkdtemp(path.join(tmpdir(), `baton-site-${name}-`)),
    freePort(),
  ])
  await migrateQueues(url)
  const postgres = createPostgres({ url, max: 4, applicationName: `test ${name}`, onError: () => undefined })
  await postgres.query('CREATE TABLE effects (n integer NOT NULL)')
  const environment = {
    DATABASE_URL: url,
    ...(redis ? { REDIS_URL: redis.url } : {}),
    SITE: name,
    HOST: '127.0.0.1',
    PORT: String(port),
    BATON_SECRET: secret,
    BATON_API_KEYS: `producer:${producerKey},operator:${operatorKey}`,
    BODY_STORES: `file:${folder}/one,file:${folder}/two`,
    JOBS_MODULE: path.join(projectRoot, 'test/fixtures/jobs/storm.ts'),
    PUSH_ALLOW_PRIVATE: '1',
    WORKER_PROCESSES: '1',
    SHUTDOWN_MS: '9000',
    ...settings,
  }
  const web = spawnBaton(['web'], environment)
  const startWorker = (): BatonProcess => spawnBaton(['worker'], environment)
  const worker = startWorker()
  // After the processes have ended: what is registered first is done last.
  atEndOfTest(async () => {
    await Promise.all([web.kill(), worker.kill()])
    await postgres.close()
    await rm(folder, { recursive: true, force: true })
  })
  const client = createClient(`http://127.0.0.1:${port}`)
  await eventually(() => assertReady(client, web), { timeoutMs: patienceMs, everyMs: 50 })
  return {
    ...client,
    ...reachOf(name, postgres, client),
    web,
    worker,
    startWorker,
    command: (args) => run(args, environment),
  }
}

async function assertReady(client: Client, web: BatonProcess): Promise<void> {
  const { status } = await client.call('GET', '/readyz')
  if (status !== 200) throw new Error(`not ready: ${web.lines.slice(-5).join('\n')}`)
}

function reachOf(
  name: string,
  postgres: Postgres,
  client: Client,
): Pick<SiteOfTwo, 'name' | 'postgres' | 'state' | 'is' | 'operate'> {
  const state = async (): Promise<{ role: string; intake: string; epoch: number }> => {
    const { rows } = await postgres.query<{ role: string; intake: string; epoch: number }>(
      'SELECT role, intake, epoch::int FROM site',
    )
    const [row] = rows
    if (!row) throw new Error('no site')
    return row
  }
  return {
    name,
    postgres,
    state,
    is: (role, intake) =>
      eventually(
        async () => {
          const now = await state()
          if (now.role !== role || now.intake !== intake) throw new Error(`${name} is ${JSON.stringify(now)}`)
        },
        { timeoutMs: patienceMs },
      ),
    operate: async <T>(method: string, to: string, body?: unknown) => {
      const reply = await client.call(method, to, {
        key: operatorKey,
        ...(body === undefined ? {} : { body }),
      })
      if (reply.status >= 300) throw new Error(`${method} ${to} answered ${reply.status}: ${reply.text}`)
      return (reply.text === '' ? undefined : JSON.parse(reply.text)) as T
    },
  }
}

async function run(args: string[], environment: Record<string, string>) {
  const command = spawnBaton(args, environment)
  const { code } = await command.exit
  return { code, stdout: [...command.stdout], lines: command.lines }
}

/** The fail-over under way at a site, or its last one. */
export interface ShownFailOver {
  id: string
  mode: string
  to: string
  phase: string
  error: { code: string; message: string } | null
  report: Record<string, unknown> | null
  refusedMs?: number
  log: { phase: string; at: string; ms?: number }[]
  finishedAt: string | null
}

/** Waits until the last fail-over of a site is over. */
export const untilOver = (site: SiteOfTwo): Promise<ShownFailOver> =>
  eventually(
    async () => {
      const { failOver } = await site.operate<{ failOver: ShownFailOver | null }>('GET', '/v1/fail-over')
      if (failOver?.finishedAt == null) throw new Error(`it is ${JSON.stringify(failOver)}`)
      return failOver
    },
    { timeoutMs: 60_000, everyMs: 50 },
  )

/** Watches both rows; `violations` are the instants at which both sites were open. */
export function watchOpen({ a, b }: TwoSites): { stop(): Promise<{ looks: number; violations: number }> } {
  let stopped = false
  let looks = 0
  let violations = 0
  const isOpen = async (site: SiteOfTwo): Promise<boolean> => (await site.state()).intake === 'open'
  const watch = async (): Promise<void> => {
    while (!stopped) {
      looks++
      // A site that is open before and after a look at the other one was open during it: it opens once at most meanwhile.
      if ((await isOpen(a)) && (await isOpen(b)) && (await isOpen(a))) violations++
      if ((await isOpen(b)) && (await isOpen(a)) && (await isOpen(b))) violations++
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  const watching = watch()
  watching.catch(() => undefined)
  atEndOfTest(() => {
    stopped = true
  })
  return {
    stop: async () => {
      stopped = true
      await watching
      return { looks, violations }
    },
  }
}
