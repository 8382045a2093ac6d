import type { AddressInfo } from 'node:net'
import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Bodies } from '../../domain/bodies/bodies.ts'
import type { AuditLog, Authenticator } from '../../platform/access.ts'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { Acceptance } from '../../platform/queues/accept.ts'
import type { QueueBackend } from '../../platform/queues/backend.ts'
import type { Ledger } from '../../platform/queues/ledger.ts'
import type { Registry } from '../../platform/queues/registry.ts'
import type { SiteWatch } from '../../platform/replication/site-watch.ts'
import type { Tracing } from '../../platform/tracing.ts'
import type { WakeBus } from '../../platform/wake-bus.ts'
import { createEventStreams, type EventStreams } from './event-streams.ts'
import { createFarewell } from './farewell.ts'
import { createIdempotency } from './idempotency.ts'
import { createJobFinder } from './job-finder.ts'
import { createJobRequestReader } from './job-request.ts'
import { createJobWatch } from './job-watch.ts'
import { createOverload, type Overload, type OverloadLimits } from './overload.ts'
import { portUnavailable } from './port.ts'
import { addBodies } from './routes/bodies.ts'
import { addDocuments } from './routes/documents.ts'
import { addHealth } from './routes/health.ts'
import { addJobControl } from './routes/job-control.ts'
import { addJobEvents } from './routes/job-events.ts'
import { addJobIntake } from './routes/job-intake.ts'
import { addJobReading } from './routes/job-reading.ts'
import { createServer, defaultLimits, type ServerLimits } from './server.ts'
import { addSiteGate } from './site-gate.ts'
import { createSiteMetrics } from './site-metrics.ts'
import { createWebMetrics, type WebMetrics } from './web-metrics.ts'

export interface WebOptions {
  host: string
  /** 0 takes any free port. */
  port: number
  /** From the first call of `stop` to its end, ms. */
  shutdownMs: number
  /** Whether /metrics answers without a key. */
  metricsOpen: boolean
  clock: Clock
  log: Log
  metrics: Metrics
  postgres: Postgres
  authenticator: Authenticator
  audit: AuditLog
  registry: Registry
  acceptance: Acceptance
  ledger: Ledger
  backend: QueueBackend
  wakeBus: WakeBus
  /** Whether the site takes writes; without it always. */
  site?: Pick<SiteWatch, 'state' | 'onChange'>
  /** Asks the listens of the plugins to come again: the site takes no more writes. */
  dismiss?(): void
  /** Undefined: nothing is traced. */
  tracing?: Tracing | undefined
  /** Without it there are no routes for bodies. */
  bodies?: Bodies
  /** Further routes on the same server, such as the dashboard: they find its hooks, errors and roles. */
  plugins?: FastifyPluginAsync[]
  limits?: Partial<ServerLimits>
  overload?: Partial<OverloadLimits>
}

/** The web tier: takes work in and tells of it. */
export interface Web {
  /** Resolves when it listens. */
  start(): Promise<{ url: string; port: number }>
  /**
   * Readiness goes off first, and event streams end with a hint when to come again. What comes meanwhile is answered
   * with `Connection: close`. When nobody opens connections any more (or a third of the time has passed) it stops
   * listening, and requests under way are finished. Never takes longer than `shutdownMs`.
   *
   * @returns false when something had to be cut
   */
  stop(): Promise<boolean>
  readonly server: FastifyInstance
}

/** Kept back from the time for a stop, for cutting what is left, ms. */
const spareMs = 250
/** Over which clients of event streams are asked to come again, ms. */
const comeAgainMs = 4_000
const pruneEveryMs = 600_000

export async function createWeb(options: WebOptions): Promise<Web> {
  const { log } = options
  const parts = createParts(options)
  const { overload, streams, watch, idempotency, metrics, stopping } = parts
  const server = await createServer({
    clock: options.clock,
    log,
    authenticator: options.authenticator,
    overload,
    limits: { ...defaultLimits, ...options.limits },
    tracing: options.tracing,
    onAnswer: metrics.answered,
    onProblem: metrics.problem,
    isStopping: () => stopping.is,
  })
  const { site, dismiss } = options
  if (site) {
    const leave = (): void => {
      streams.dismiss(comeAgainMs)
      dismiss?.()
    }
    addSiteGate(server, { site, dismiss: leave })
  }
  await addRoutes(server, options, parts)
  const farewell = createFarewell(server, options.clock)

  let pruning: NodeJS.Timeout | undefined
  const prune = (): void => {
    idempotency
      .prune(5_000)
      .catch((error: unknown) => log.warn({ reason: messageOf(error) }, 'Old Idempotency-Keys stay for now'))
  }

  const stop = async (): Promise<boolean> => {
    const deadline = options.clock.monotonicMs() + options.shutdownMs
    stopping.is = true
    clearInterval(pruning)
    watch.stop()
    streams.endAll(comeAgainMs)
    await farewell.waitUntilUnvisited(options.shutdownMs / 3)
    const clean = await farewell.close(Math.max(100, deadline - options.clock.monotonicMs() - spareMs))
    if (!clean) log.warn('Requests were still under way when the time for a stop was up, and were cut')
    overload.stop()
    return clean
  }
  let stopped: Promise<boolean> | undefined

  return {
    server,
    start: async () => {
      overload.start()
      await listen(server, options)
      pruning = setInterval(prune, pruneEveryMs).unref()
      const { port } = server.server.address() as AddressInfo
      return { port, url: `http://${options.host === '0.0.0.0' ? '127.0.0.1' : options.host}:${port}` }
    },
    stop: () => (stopped ??= stop()),
  }
}

/** @throws PORT_UNAVAILABLE */
async function listen(server: FastifyInstance, { host, port }: WebOptions): Promise<void> {
  try {
    await server.listen({ host, port, backlog: 1_024 })
  } catch (error) {
    throw portUnavailable({ host, port }, error)
  }
}

type Parts = ReturnType<typeof createParts>

function createParts(options: WebOptions) {
  const { postgres, acceptance, registry, ledger, backend, clock, log } = options
  const streams: EventStreams = createEventStreams()
  const overload: Overload = createOverload({
    backlog: () => acceptance.pending,
    databaseWaiters: () => postgres.load().waiting,
    ...(options.overload ? { limits: options.overload } : {}),
  })
  const metrics: WebMetrics = createWebMetrics({
    metrics: options.metrics,
    ledger,
    site: createSiteMetrics({ postgres, queues: registry.queues, clock, log }),
    clock,
    log,
    gauges: () => ({
      backlog: acceptance.pending,
      streams: streams.count,
      databaseWaiting: postgres.load().waiting,
    }),
  })
  const finder = createJobFinder({ ledger, backend, registry })
  return {
    streams,
    overload,
    metrics,
    finder,
    watch: createJobWatch({ finder, clock, log }),
    idempotency: createIdempotency({ postgres }),
    reader: createJobRequestReader(registry),
    stopping: { is: false },
  }
}

async function addRoutes(server: FastifyInstance, options: WebOptions, parts: Parts): Promise<void> {
  const { finder, watch, streams, metrics, reader, idempotency, stopping } = parts
  addHealth(server, {
    postgres: options.postgres,
    backend: options.backend,
    metrics,
    metricsOpen: options.metricsOpen,
    isStopping: () => stopping.is,
    site: options.site,
  })
  addJobIntake(server, {
    clock: options.clock,
    acceptance: options.acceptance,
    reader,
    idempotency,
    metrics,
  })
  addJobReading(server, { ledger: options.ledger, finder })
  addJobEvents(server, { finder, watch, streams })
  addJobControl(server, {
    ledger: options.ledger,
    backend: options.backend,
    finder,
    audit: options.audit,
    wakeBus: options.wakeBus,
    log: options.log,
  })
  if (options.bodies) await addBodies(server, options.bodies)
  for (const plugin of options.plugins ?? []) await server.register(plugin)
  addDocuments(server)
  await server.ready()
}
