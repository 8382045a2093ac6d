import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { codeOf } from '../../../core/errors.ts'
import { withLimit } from '../../../core/lifecycle.ts'
import { assertMigrated } from '../../../platform/postgres/migrate.ts'
import type { Postgres } from '../../../platform/postgres/postgres.ts'
import type { QueueBackend } from '../../../platform/queues/backend.ts'
import type { SiteWatch } from '../../../platform/replication/site-watch.ts'
import { problems } from '../open-api.ts'
import type { WebMetrics } from '../web-metrics.ts'

const lookMs = 2_000
/** How long one look serves all who ask, ms. */
const sharedMs = 250

export interface HealthOptions {
  postgres: Postgres
  backend: Pick<QueueBackend, 'ping' | 'engine'>
  metrics: WebMetrics
  /** Whether /metrics answers without a key. */
  metricsOpen: boolean
  isStopping(): boolean
  /** Without it the site is always open. */
  site?: Pick<SiteWatch, 'state'> | undefined
}

/** `/livez`, `/readyz`, `/metrics`. */
export function addHealth(server: FastifyInstance, options: HealthOptions): void {
  server.get(
    '/livez',
    {
      schema: {
        tags: ['process'],
        summary: 'The process is alive',
        response: { 200: Type.Object({ status: Type.Literal('alive') }) },
      },
    },
    (_request, reply) => {
      reply.header('cache-control', 'no-store').send({ status: 'alive' })
    },
  )
  addReadiness(server, options)
  server.get(
    '/metrics',
    {
      config: options.metricsOpen ? {} : { roles: ['viewer'] },
      schema: {
        tags: ['process'],
        summary: "Prometheus' text format",
        ...(options.metricsOpen ? {} : { security: [{ key: [] }] }),
        response: {
          200: { description: 'All series', content: { 'text/plain': { schema: Type.String() } } },
          ...problems(),
        },
      },
    },
    async (_request, reply) => {
      const { text, contentType } = await options.metrics.scrape()
      return reply.header('cache-control', 'no-store').type(contentType).send(text)
    },
  )
}

const Readiness = Type.Object({
  ready: Type.Boolean(),
  checks: Type.Object({
    process: Type.String({ description: '`ok` or `stopping`' }),
    postgres: Type.String({ description: '`ok`, or why not' }),
    queue: Type.String({
      description:
        '`ok`, or why not. A queue that is away does not make the process unready: acceptance goes on',
    }),
    site: Type.String({
      description:
        '`open`, or `draining` or `closed`: then it answers reads, and 503 `SITE_CLOSED` to writes. That makes the ' +
        'process unready only for who asks with `?intake=open`',
    }),
  }),
})

function addReadiness(server: FastifyInstance, options: HealthOptions): void {
  const { postgres, backend } = options
  // Only the code: the message of a driver names hosts and ports, and this route is open to all.
  const okOrWhy = (work: Promise<unknown>): Promise<string> =>
    withLimit(work, lookMs).then(
      () => 'ok',
      (error: unknown) => codeOf(error) ?? 'NO_ANSWER',
    )
  const look = (): Promise<[string, string]> =>
    Promise.all([okOrWhy(assertMigrated(postgres)), okOrWhy(backend.ping(lookMs))])
  // Open to all, so it must not cost a statement for each who asks.
  let looking: Promise<[string, string]> | undefined
  const sharedLook = (): Promise<[string, string]> => {
    looking ??= look().finally(() => setTimeout(() => (looking = undefined), sharedMs).unref())
    return looking
  }

  server.get<{ Querystring: { intake?: string } }>(
    '/readyz',
    {
      schema: {
        tags: ['process'],
        summary: 'The process takes requests',
        description:
          'Postgres is reachable and migrated, and no stop is under way. Else 503. With `?intake=open` also 503 while ' +
          'the site takes no writes: for a balancer that chooses between sites. One in front of a single site must not ' +
          'ask so: a replica is reached through it by the site that leads.',
        querystring: Type.Object({ intake: Type.Optional(Type.Literal('open')) }),
        response: { 200: Readiness, 503: Readiness },
      },
    },
    async (request, reply) => {
      const [database, queue] = await sharedLook()
      const stopping = options.isStopping()
      const intake = options.site?.state?.intake ?? 'open'
      const ready = database === 'ok' && !stopping && (request.query.intake !== 'open' || intake === 'open')
      return reply
        .code(ready ? 200 : 503)
        .header('cache-control', 'no-store')
        .send({
          ready,
          checks: {
            process: stopping ? 'stopping' : 'ok',
            postgres: database,
            queue:
              queue === 'ok' ? queue : `${queue}: jobs are accepted all the same and run when it is back`,
            site: intake,
          },
        })
    },
  )
}
