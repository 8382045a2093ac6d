import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { isId } from '../../../core/ids.ts'
import type { Principal } from '../../../platform/access.ts'
import type { BulkRetries } from '../../../platform/queues/bulk-retry.ts'
import type { Ledger } from '../../../platform/queues/ledger.ts'
import { fieldOf, formOf, queryOf } from '../form.ts'
import { type JobActs, retryJob } from '../job-acts.ts'
import { link } from '../links.ts'
import { noticeOf } from '../notices.ts'
import { type DashboardPage, home, type Shell } from '../page.ts'
import { type FailedFilterFields, rates, renderFailed } from './failed-view.ts'

export interface FailedOptions {
  ledger: Pick<Ledger, 'list'>
  acts: JobActs
  retries: Pick<BulkRetries, 'begin' | 'stop' | 'list'>
  jobNames: readonly string[]
  queues: readonly string[]
}

const active = `${home}/failed`
const perPage = 50
const shownRetries = 5

/** `/failed`: jobs that have used up their attempts, and ways to run them again. */
export function createFailedPage(options: FailedOptions): DashboardPage {
  return {
    nav: { href: active, label: 'Failed' },
    register: (server, shell) => {
      server.get('/failed', (request, reply) => showFailed(options, shell, { request, reply }))
      server.post('/failed/retry', async (request, reply) => {
        const by = shell.visitor(request).principal
        return reply.redirect(await retrySelected(options.acts, by, formOf(request)), 303)
      })
      addRetryAll(server, options.retries, shell)
    },
  }
}

async function showFailed(
  { ledger, retries, jobNames, queues }: FailedOptions,
  shell: Shell,
  { request, reply }: { request: FastifyRequest; reply: FastifyReply },
): Promise<FastifyReply> {
  const filter = filterOf(queryOf(request))
  const cursor = fieldOf(queryOf(request), 'cursor')
  const place = cursor === undefined ? {} : { cursor }
  const [page, recent] = await Promise.all([
    ledger.list({ state: 'failed', ...filter, ...place, limit: perPage }),
    retries.list(shownRetries),
  ])
  const content = renderFailed({
    page,
    retries: recent,
    filter,
    cursor,
    jobNames,
    queues,
    notice: noticeOf(request),
    isOperator: shell.visitor(request).isOperator,
    token: shell.token(request),
    now: shell.now(),
  })
  return shell.send(request, reply, { title: 'Failed jobs', active, live: true, content })
}

/** @returns where to go from there */
async function retrySelected(acts: JobActs, by: Principal, form: URLSearchParams): Promise<string> {
  const ids = [...new Set(form.getAll('id'))].filter(isId).slice(0, perPage)
  const results: Awaited<ReturnType<Ledger['retry']>>[] = []
  // One after the other: a page of them is no reason to take every connection.
  for (const id of ids) results.push(await retryJob(acts, by, id))
  const retried = results.filter((result) => result === 'retried').length
  const notice = ids.length === 0 ? 'none' : retried > 0 ? 'retried' : (results[0] ?? 'missing')
  return link('/failed', { ...filterOf(form), notice, count: retried > 1 ? String(retried) : undefined })
}

function addRetryAll(server: FastifyInstance, retries: FailedOptions['retries'], shell: Shell): void {
  server.post('/failed/retry-all', async (request, reply) => {
    const filter = filterOf(formOf(request))
    const actor = shell.visitor(request).principal.name
    const { begun } = await retries.begin({ actor, filter, perSecond: rateOf(request) })
    return reply.redirect(link('/failed', { ...filter, notice: begun ? 'begun' : 'running' }), 303)
  })
  server.post<{ Params: { id: string } }>('/failed/retry-all/:id/stop', async (request, reply) => {
    const { id } = request.params
    const stopped = isId(id) && (await retries.stop(id, shell.visitor(request).principal.name))
    return reply.redirect(link('/failed', { notice: stopped ? 'stopped' : 'ended' }), 303)
  })
}

function filterOf(fields: URLSearchParams): FailedFilterFields {
  const [name, queue] = [fieldOf(fields, 'name'), fieldOf(fields, 'queue')]
  return { ...(name === undefined ? {} : { name }), ...(queue === undefined ? {} : { queue }) }
}

/** The slowest unless one of those offered was chosen. */
function rateOf(request: FastifyRequest): number {
  const wanted = Number(fieldOf(formOf(request), 'rate'))
  return rates.find((rate) => rate === wanted) ?? rates[0]
}
