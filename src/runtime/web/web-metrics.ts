import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { Ledger } from '../../platform/queues/ledger.ts'
import type { SiteMetrics } from './site-metrics.ts'

/** What the web tier counts, and what it looks up when somebody asks for the numbers. */
export interface WebMetrics {
  answered(answer: { method: string; route: string; status: number; ms: number }): void
  problem(code: string): void
  accepted(job: string): void
  scrape(): Promise<{ text: string; contentType: string }>
}

export interface WebMetricsOptions {
  metrics: Metrics
  ledger: Pick<Ledger, 'summary'>
  site: SiteMetrics
  clock: Clock
  log: Log
  /** What is true of this process just now. */
  gauges(): { backlog: number; streams: number; databaseWaiting: number }
}

/** However many ask, and however often: the ledger is counted this often at most. */
const summaryMs = 5_000

export function createWebMetrics(options: WebMetricsOptions): WebMetrics {
  const { metrics, ledger, clock, log } = options
  // Counted for each job on the path that has to be fast, so it is handed over only when somebody asks.
  const accepted = new Map<string, number>()
  let countedAt = Number.NEGATIVE_INFINITY
  let counting: Promise<void> | undefined

  const countJobs = async (): Promise<void> => {
    try {
      const { states, oldestWaitingMs } = await ledger.summary()
      for (const [state, count] of Object.entries(states)) metrics.set('baton_jobs', { state }, count)
      metrics.set('baton_oldest_waiting_seconds', {}, oldestWaitingMs / 1_000)
    } catch (error) {
      // The numbers of the process are worth having, and more so while the database is away.
      log.warn({ reason: messageOf(error) }, 'The ledger could not be counted for the metrics')
    }
  }

  const countJobsNow = (): Promise<void> => {
    if (clock.monotonicMs() - countedAt < summaryMs) return counting ?? Promise.resolve()
    countedAt = clock.monotonicMs()
    counting = countJobs()
    return counting
  }

  return {
    answered: ({ method, route, status, ms }) =>
      metrics.observe(
        'baton_http_request_duration_seconds',
        { method, route, status: String(status) },
        ms / 1_000,
      ),
    problem: (code) => metrics.count('baton_problems_total', { code }),
    accepted: (job) => void accepted.set(job, (accepted.get(job) ?? 0) + 1),
    scrape: async () => {
      for (const [job, count] of accepted) metrics.count('baton_jobs_accepted_total', { job }, count)
      accepted.clear()
      const { backlog, streams, databaseWaiting } = options.gauges()
      metrics.set('baton_accept_backlog', {}, backlog)
      metrics.set('baton_event_streams', {}, streams)
      metrics.set('baton_database_waiting', {}, databaseWaiting)
      const [others] = await Promise.all([options.site.read(), countJobsNow()])
      return { text: await metrics.text(others), contentType: metrics.contentType }
    },
  }
}
