import { pino } from 'pino'
import { Type } from 'typebox'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createAuditLog } from '../../../src/platform/access/audit-log.ts'
import { createAuthenticator } from '../../../src/platform/access/authenticator.ts'
import { createKeyStore } from '../../../src/platform/access/key-store.ts'
import type { KeyStore } from '../../../src/platform/access.ts'
import { createMetrics } from '../../../src/platform/metrics.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { createAcceptance } from '../../../src/platform/queues/accept.ts'
import type { QueueBackend } from '../../../src/platform/queues/backend.ts'
import { createRedisBackend } from '../../../src/platform/queues/backends/redis.ts'
import { defineJob } from '../../../src/platform/queues/job.ts'
import type { Ledger } from '../../../src/platform/queues/ledger.ts'
import { createLedger } from '../../../src/platform/queues/ledger-postgres.ts'
import { createRegistry } from '../../../src/platform/queues/registry.ts'
import { createWeb, type Web, type WebOptions } from '../../../src/runtime/web/web.ts'
import { testDatabase, testRedis } from '../../support/databases.ts'

/** Keys of the environment, by role. */
export const producer = 'producer-key-0123456789'
export const viewer = 'viewer-key-0123456789'
export const operator = 'operator-key-0123456789'

const jobs = [
  defineJob({
    name: 'mail',
    queue: 'default',
    payload: Type.Object(
      { to: Type.String({ minLength: 1 }), copies: Type.Optional(Type.Integer({ minimum: 1 })) },
      { additionalProperties: false },
    ),
    run: async () => undefined,
  }),
  defineJob({ name: 'any', queue: 'other', payload: Type.Unknown(), run: async () => undefined }),
  defineJob({
    name: 'ping',
    queue: 'other',
    payload: Type.Unknown(),
    durable: false,
    run: async () => undefined,
  }),
]

export interface Harness {
  url: string
  web: Web
  postgres: Postgres
  ledger: Ledger
  backend: QueueBackend
  keys: KeyStore
  /** What was logged, as JSON lines. */
  lines: string[]
  /** Rows of `jobs`. */
  count(): Promise<number>
  request(path: string, init?: RequestInit & { key?: string }): Promise<Response>
  post(body: unknown, headers?: Record<string, string>): Promise<Response>
  close(): Promise<void>
}

export interface HarnessOptions extends Partial<WebOptions> {
  databaseUrl?: string
  redisUrl?: string
  /** Longest wait for a Postgres connection, ms. */
  maxWaitMs?: number
}

/** The web tier on the shared servers, as `baton web` puts it together. */
export async function startHarness(options: HarnessOptions = {}): Promise<Harness> {
  const clock = createSystemClock()
  const redis = await testRedis()
  const postgres = createPostgres({
    url: options.databaseUrl ?? (await testDatabase()).url,
    max: 5,
    applicationName: 'test web',
    onError: () => undefined,
    maxWaitMs: options.maxWaitMs ?? 5_000,
  })
  const lines: string[] = []
  const log = pino({ level: 'debug' }, { write: (line: string) => void lines.push(line) })
  const registry = createRegistry(jobs)
  const ledger = createLedger({ postgres, clock })
  const backend = createRedisBackend({
    url: options.redisUrl ?? redis.url,
    prefix: redis.prefix,
    clock,
    onError: () => undefined,
  })
  const acceptance = createAcceptance({ postgres, ledger, backend, clock, onError: () => undefined })
  const keys = createKeyStore({ postgres, clock })
  const wakeBus = {
    publish: () => Promise.resolve(),
    subscribe: () => Promise.reject(new Error('no')),
    onRestored: () => undefined,
    close: () => Promise.resolve(),
  }
  const web = await createWeb({
    host: '127.0.0.1',
    port: 0,
    shutdownMs: 5_000,
    metricsOpen: false,
    clock,
    log,
    metrics: createMetrics(),
    postgres,
    authenticator: createAuthenticator({
      keys,
      clock,
      environmentKeys: [`producer:${producer}`, `viewer:${viewer}`, `operator:${operator}`],
    }),
    audit: createAuditLog({ postgres }),
    registry,
    acceptance,
    ledger,
    backend,
    wakeBus,
    ...options,
  })
  const { url } = await web.start()
  const request = (path: string, { key, ...init }: RequestInit & { key?: string } = {}): Promise<Response> =>
    fetch(`${url}${path}`, {
      ...init,
      headers: {
        ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
        ...(init.headers as Record<string, string>),
      },
    })
  return {
    url,
    web,
    postgres,
    ledger,
    backend,
    keys,
    lines,
    request,
    count: async () => {
      const { rows } = await postgres.query<{ n: string }>('SELECT count(*) AS n FROM jobs')
      return Number(rows[0]?.n)
    },
    post: (body, headers = {}) =>
      request('/v1/jobs', {
        method: 'POST',
        key: producer,
        body:
          typeof body === 'string' || body instanceof Uint8Array ? (body as string) : JSON.stringify(body),
        headers: { 'content-type': 'application/json', ...headers },
      }),
    close: async () => {
      await web.stop()
      await acceptance.idle()
      await backend.close()
      await postgres.close()
    },
  }
}

export interface ProblemDocument {
  status: number
  code: string
  detail: string
  errors?: { path: string; message: string }[]
  requestId?: string
}

export async function problem(response: Response): Promise<ProblemDocument> {
  if (!response.headers.get('content-type')?.startsWith('application/problem+json')) {
    throw new Error(`not a problem: ${response.status} ${await response.text()}`)
  }
  return (await response.json()) as ProblemDocument
}
