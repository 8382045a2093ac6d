import type { Clock } from '../../../core/clock.ts'
import { isId } from '../../../core/ids.ts'
import type { AuditLog, AuditRecord } from '../../../platform/access.ts'
import type { Postgres } from '../../../platform/postgres/postgres.ts'
import { JOB_NOT_FOUND } from '../../../platform/queues/errors.ts'
import { type JobDetails, readJobDetails } from '../../../platform/queues/job-details.ts'
import type { Ledger } from '../../../platform/queues/ledger.ts'
import { isClaim, redeem } from '../../../platform/queues/payload-claim.ts'
import type { PayloadStore } from '../../../platform/queues/payload-store.ts'
import { cancelJob, type JobActs, retryJob } from '../job-acts.ts'
import { link } from '../links.ts'
import { noticeOf } from '../notices.ts'
import { type DashboardPage, home } from '../page.ts'
import { type Reading, read } from '../reading.ts'
import { renderJob } from './job-view.ts'

export interface JobPageOptions {
  clock: Clock
  postgres: Postgres
  ledger: Pick<Ledger, 'get'>
  audit: Pick<AuditLog, 'list'>
  acts: JobActs
  payloads?: PayloadStore
}

/** As the handler gets it. */
const payloadOf = async (payload: unknown, payloads: PayloadStore | undefined): Promise<unknown> =>
  isClaim(payload) ? redeem(payload, payloads) : payload

type ById = { Params: { id: string } }

const maxHistory = 20

/** `/jobs/:id`: all that is known of one job. */
export function createJobPage(options: JobPageOptions): DashboardPage {
  const { clock, postgres, ledger, audit, acts } = options
  return {
    register: (server, shell) => {
      server.get<ById>('/jobs/:id', async (request, reply) => {
        const { id } = request.params
        const job = isId(id) ? await ledger.get(id) : undefined
        if (!job) throw JOB_NOT_FOUND({ id: id.slice(0, 60) })
        const [details, history, payload]: [
          Reading<JobDetails | undefined>,
          Reading<AuditRecord[]>,
          Reading<unknown>,
        ] = await Promise.all([
          read(clock, () => readJobDetails(postgres, id)),
          read(clock, () => audit.list({ limit: maxHistory, subject: id })),
          read(clock, () => payloadOf(job.payload, options.payloads)),
        ])
        const content = renderJob({
          job,
          details,
          history,
          payload,
          notice: noticeOf(request),
          isOperator: shell.visitor(request).isOperator,
          token: shell.token(request),
          now: shell.now(),
        })
        return shell.send(request, reply, {
          title: `Job ${job.name}`,
          active: `${home}/jobs`,
          live: true,
          content,
        })
      })
      server.post<ById>('/jobs/:id/retry', async (request, reply) => {
        const { id } = request.params
        const notice = isId(id) ? await retryJob(acts, shell.visitor(request).principal, id) : 'missing'
        return reply.redirect(link(notice === 'missing' ? '/jobs' : `/jobs/${id}`, { notice }), 303)
      })
      server.post<ById>('/jobs/:id/cancel', async (request, reply) => {
        const { id } = request.params
        const notice = isId(id) ? await cancelJob(acts, shell.visitor(request).principal, id) : 'missing'
        return reply.redirect(link(notice === 'missing' ? '/jobs' : `/jobs/${id}`, { notice }), 303)
      })
    },
  }
}
