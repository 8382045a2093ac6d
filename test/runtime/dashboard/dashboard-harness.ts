import { pino } from 'pino'
import { type Clock, createSystemClock } from '../../../src/core/clock.ts'
import { newId } from '../../../src/core/ids.ts'
import { createAuditLog } from '../../../src/platform/access/audit-log.ts'
import { createAuthenticator } from '../../../src/platform/access/authenticator.ts'
import { createKeyStore } from '../../../src/platform/access/key-store.ts'
import type { AuditLog, KeyStore } from '../../../src/platform/access.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import type { QueueBackend } from '../../../src/platform/queues/backend.ts'
import { createPostgresBackend } from '../../../src/platform/queues/backends/postgres.ts'
import { createRedisBackend } from '../../../src/platform/queues/backends/redis.ts'
import type { Ledger, NewJob } from '../../../src/platform/queues/ledger.ts'
import { createLedger } from '../../../src/platform/queues/ledger-postgres.ts'
import { createDashboard, type DashboardOptions } from '../../../src/runtime/dashboard/dashboard.ts'
import type { DashboardPage } from '../../../src/runtime/dashboard/page.ts'
import { createOverload } from '../../../src/runtime/web/overload.ts'
import { createServer, defaultLimits } from '../../../src/runtime/web/server.ts'

/** Keys of the environment, by role. */
export const environmentKeys = {
  operator: 'operator-key-0123456789',
  viewer: 'viewer-key-0123456789',
  producer: 'producer-key-0123456789',
} as const

export interface DashboardHarness {
  url: string
  postgres: Postgres
  ledger: Ledger
  backend: QueueBackend
  keys: KeyStore
  audit: AuditLog
  /** What was logged, as JSON lines. */
  lines: string[]
  /** Texts that were published, by channel. */
  wakes: string[]
  /** Without following redirects. */
  request(path: string, init?: RequestInit): Promise<Response>
  /** A browser of somebody who is logged in. */
  logIn(key: string): Promise<Browser>
  addJob(job?: Partial<NewJob>): Promise<string>
  addFailed(
    job?: Partial<NewJob> & { error?: { code: string; message: string; stack?: string } },
  ): Promise<string>
  /** Paths in the document of the API. */
  documented(): string[]
  close(): Promise<void>
}

export interface Browser {
  cookie: string
  get(path: string, headers?: Record<string, string>): Promise<Response>
  /** The text of a page; fails unless it is answered with 200. */
  page(path: string): Promise<string>
  /** Posts a form with the token of this session, unless fields say otherwise. */
  post(
    path: string,
    fields?: Record<string, string | string[]>,
    headers?: Record<string, string>,
  ): Promise<Response>
  token: string
}

export interface HarnessOptions extends Partial<DashboardOptions> {
  databaseUrl: string
  engine: { kind: 'redis'; url: string; prefix?: string } | { kind: 'postgres' }
  port?: number
  /** Further pages, on the dashboard's own connections. */
  pagesOf?(parts: { postgres: Postgres; clock: Clock; audit: AuditLog }): DashboardPage[]
  /** Default: one of each role. */
  apiKeys?: string[]
}

export const formType = { 'content-type': 'application/x-www-form-urlencoded' }

/** The dashboard in the web tier's own server, so with its hooks before and after. */
export async function startDashboard(options: HarnessOptions): Promise<DashboardHarness> {
  const clock = options.clock ?? createSystemClock()
  const onError = (): void => undefined
  const postgres = createPostgres({
    url: options.databaseUrl,
    max: 6,
    applicationName: 'test dashboard',
    onError,
    maxWaitMs: 3_000,
  })
  const lines: string[] = []
  const wakes: string[] = []
  const log = pino({ level: 'debug' }, { write: (line: string) => void lines.push(line) })
  const backend =
    options.engine.kind === 'redis'
      ? createRedisBackend({ ...options.engine, clock, onError })
      : createPostgresBackend({ url: options.databaseUrl, clock, onError })
  const ledger = createLedger({ postgres, clock })
  const keys = createKeyStore({ postgres, clock })
  const audit = createAuditLog({ postgres })
  const apiKeys = options.apiKeys ?? Object.entries(environmentKeys).map(([role, key]) => `${role}:${key}`)
  const authenticator = createAuthenticator({ keys, clock, environmentKeys: apiKeys })
  const server = await createServer({
    clock,
    log,
    authenticator,
    overload: createOverload({ backlog: () => 0, databaseWaiters: () => 0 }),
    limits: defaultLimits,
    onAnswer: onError,
    onProblem: onError,
    isStopping: () => false,
  })
  await server.register(
    createDashboard({
      secret: 'a secret for tests only',
      site: 'test',
      clock,
      log,
      postgres,
      ledger,
      backend,
      wakeBus: { publish: async (channel, text) => void wakes.push(`${channel} ${text}`) },
      authenticator,
      keys,
      audit,
      environmentKeys: apiKeys.length > 0,
      jobNames: ['mail', 'report'],
      queues: ['default', 'heavy'],
      ...options,
      pages: options.pagesOf?.({ postgres, clock, audit }) ?? [],
    }),
  )
  const url = (await server.listen({ host: '127.0.0.1', port: options.port ?? 0 })).replace(/\/$/, '')
  const request = (path: string, init: RequestInit = {}): Promise<Response> =>
    fetch(url + path, { redirect: 'manual', ...init })

  const addJob = async (job: Partial<NewJob> = {}): Promise<string> => {
    const id = newId(clock.now())
    await ledger.insert([
      {
        id,
        name: 'mail',
        queue: 'default',
        payload: {},
        priority: 0,
        maxAttempts: 3,
        delayMs: 0,
        queued: true,
        ...job,
      },
    ])
    return id
  }
  return {
    url,
    postgres,
    ledger,
    backend,
    keys,
    audit,
    lines,
    wakes,
    request,
    documented: () => Object.keys(server.swagger().paths ?? {}),
    logIn: (key) => logIn(request, key),
    addJob,
    addFailed: async ({ error = { code: 'JOB_FAILED', message: 'the printer is on fire' }, ...job } = {}) => {
      const id = await addJob(job)
      const run = { token: crypto.randomUUID(), runner: 'runner-1' }
      await ledger.start(id, run)
      await ledger.finish(id, run.token, { kind: 'failed', error })
      return id
    },
    close: async () => {
      await server.close()
      await backend.close()
      await postgres.close()
    },
  }
}

type Request = DashboardHarness['request']

export const cookieOf = (answer: Response, name: string): string | undefined =>
  answer.headers
    .getSetCookie()
    .map((each) => each.split(';')[0] ?? '')
    .find((each) => each.startsWith(`${name}=`) && each !== `${name}=`)

export const tokenOf = (page: string): string => /name="token" value="([^"]+)"/.exec(page)?.[1] ?? ''

/** The log-in page, and what a browser would send of it. */
export async function openLogIn(request: Request): Promise<{ cookie: string; token: string }> {
  const answer = await request('/dashboard/log-in')
  return { cookie: cookieOf(answer, 'baton_log_in') ?? '', token: tokenOf(await answer.text()) }
}

export async function tryLogIn(
  request: Request,
  key: string,
  headers: Record<string, string> = {},
): Promise<Response> {
  const { cookie, token } = await openLogIn(request)
  return request('/dashboard/log-in', {
    method: 'POST',
    headers: { ...formType, cookie, ...headers },
    body: new URLSearchParams({ key, token }),
  })
}

/** A browser of somebody who is logged in. */
export async function logIn(request: Request, key: string): Promise<Browser> {
  const answer = await tryLogIn(request, key)
  const cookie = cookieOf(answer, 'baton_dashboard')
  if (!cookie) throw new Error(`no log-in: ${answer.status} ${await answer.text()}`)
  const get = (path: string, headers: Record<string, string> = {}): Promise<Response> =>
    request(path, { headers: { cookie, ...headers } })
  const page = async (path: string): Promise<string> => {
    const answered = await get(path)
    const text = await answered.text()
    if (answered.status !== 200) throw new Error(`${path}: ${answered.status} ${text}`)
    return text
  }
  const token = tokenOf(await page('/dashboard'))
  return {
    cookie,
    token,
    get,
    page,
    post: (path, fields = {}, headers = {}) => {
      const body = new URLSearchParams({ token })
      for (const [name, values] of Object.entries(fields)) {
        body.delete(name)
        for (const value of [values].flat()) body.append(name, value)
      }
      return request(path, { method: 'POST', headers: { ...formType, cookie, ...headers }, body })
    },
  }
}
