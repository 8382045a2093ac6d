import cookie from '@fastify/cookie'
import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import type { Clock } from '../../core/clock.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { AuditLog, Authenticator, KeyStore } from '../../platform/access.ts'
import type { Log } from '../../platform/log.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { QueueBackend } from '../../platform/queues/backend.ts'
import { type BulkRetries, createBulkRetries } from '../../platform/queues/bulk-retry.ts'
import type { Ledger } from '../../platform/queues/ledger.ts'
import type { PayloadStore } from '../../platform/queues/payload-store.ts'
import type { SiteState } from '../../platform/replication/site.ts'
import type { SiteWatch } from '../../platform/replication/site-watch.ts'
import type { WakeBus } from '../../platform/wake-bus.ts'
import { addAssets, readAssets } from './assets.ts'
import { addErrorPage, createAnswerError } from './error-page.ts'
import { addFormParser } from './form.ts'
import { addGate } from './gate.ts'
import { type Hole, html } from './html.ts'
import { addLogIn } from './log-in.ts'
import { type DashboardPage, home } from './page.ts'
import { createAuditPage } from './pages/audit.ts'
import { createFailedPage } from './pages/failed.ts'
import { createJobPage } from './pages/job.ts'
import { createJobsPage } from './pages/jobs.ts'
import { createKeysPage } from './pages/keys.ts'
import { createOverviewPage } from './pages/overview.ts'
import { createQueuesPage } from './pages/queues.ts'
import { createSessions } from './session.ts'
import { type BareView, createSendBare, createShell } from './shell.ts'

export interface DashboardOptions {
  /** Signs sessions; the same on every node. */
  secret: string
  /** The site's name, shown on each page. */
  site: string
  clock: Clock
  log: Log
  postgres: Postgres
  ledger: Ledger
  backend: QueueBackend & QueueInspection
  /** Where payloads lie that are too large for a row. */
  payloads?: PayloadStore
  wakeBus: Pick<WakeBus, 'publish'>
  authenticator: Authenticator
  keys: KeyStore
  audit: AuditLog
  /** Whether BATON_API_KEYS has any. */
  environmentKeys: boolean
  /** Of the registry: what filters offer. */
  jobNames: readonly string[]
  queues: readonly string[]
  /** Whether the site takes writes; each page says when it does not. */
  siteWatch?: Pick<SiteWatch, 'state'>
  /** Further pages, after those about jobs. */
  pages?: readonly DashboardPage[]
}

/** The engine's own objects of queues, for bull-board alone. */
export interface QueueInspection {
  inspect(queue: string): Promise<unknown>
}

/** `/dashboard`, as a plugin of the web tier's server. */
export function createDashboard(options: DashboardOptions): FastifyPluginAsync {
  return async (server) => {
    await server.register((scope) => build(scope, options), { prefix: home })
  }
}

async function build(server: FastifyInstance, options: DashboardOptions): Promise<void> {
  const sessions = createSessions(options)
  const retries = createBulkRetries(options)
  const pages = allPages(options, retries)
  const layout = {
    assets: await readAssets(),
    nav: pages.flatMap((page) => page.nav ?? []),
    site: options.site,
    warning: () => warningOf(options.siteWatch?.state),
  }
  const sendBare = createSendBare(layout)

  // The document of the API tells of the API alone.
  server.addHook('onRoute', (route) => {
    route.schema = { ...route.schema, hide: true }
  })
  await server.register(cookie)
  addFormParser(server)
  const fail = createAnswerError({ log: options.log, sendBare })
  addErrorPage(server, fail)
  addGate(server, {
    sessions,
    authenticator: options.authenticator,
    sendAgain: (request, reply) => sendBare(reply, arrival(request.url)),
  })
  addAssets(server, layout.assets)
  addLogIn(server, { ...options, sessions, sendBare })
  const shell = createShell({ clock: options.clock, sessions, layout, fail })
  for (const page of pages) await page.register(server, shell)
  workWhileOpen(server, retries)
}

function warningOf(state: SiteState | undefined): Hole {
  if (state === undefined || state.intake === 'open') return undefined
  const why =
    state.role === 'replica'
      ? html`This site is a replica of ${state.leader}: it takes no writes, and jobs and pushes run there.`
      : html`This site takes no writes now (${state.intake}): a fail-over is under way.`
  return html`<p class="notice notice-bad" role="status">${why} <a href="${home}/replicas">Replicas</a></p>`
}

/** In the order of the navigation. */
function allPages(options: DashboardOptions, retries: BulkRetries): DashboardPage[] {
  const { ledger, audit, wakeBus, log, pages = [] } = options
  const lines = pages.flatMap((page) => page.line ?? [])
  const acts = { ledger, audit, wakeBus, log }
  return [
    createOverviewPage({ ...options, lines }),
    createJobsPage(options),
    createJobPage({ ...options, acts }),
    createFailedPage({ ...options, acts, retries }),
    createQueuesPage(options),
    ...pages,
    createAuditPage(options),
    createKeysPage(options),
  ]
}

const stopMs = 1_000

function workWhileOpen(server: FastifyInstance, retries: BulkRetries): void {
  const ended = new AbortController()
  let working: Promise<void> | undefined
  server.addHook('onReady', async () => {
    working = retries.work(ended.signal)
  })
  server.addHook('onClose', async () => {
    ended.abort()
    // With a Postgres that hangs a bite would hold up the stop; another process takes it over.
    await withLimit(working ?? Promise.resolve(), stopMs).catch(() => undefined)
  })
}

/** Asks for the same page once more, now from our own site, so that the cookie comes along. */
const arrival = (url: string): BareView => ({
  title: 'One moment',
  head: html`<meta http-equiv="refresh" content="0;url=${url}">`,
  content: html`<p><a href="${url}">Go on to the dashboard</a></p>`,
})
