import type { FastifyRequest } from 'fastify'
import { isId } from '../../../core/ids.ts'
import type { JobFilter, JobPage, JobView, Ledger } from '../../../platform/queues/ledger.ts'
import { figure, instant } from '../figures.ts'
import { fieldOf, queryOf } from '../form.ts'
import { type Html, html } from '../html.ts'
import { jobLink, link } from '../links.ts'
import { type DashboardPage, home } from '../page.ts'
import { progressOf } from '../progress-view.ts'
import { isJobState, jobStates, stateMark } from '../states.ts'
import { table } from '../table.ts'

export interface JobsOptions {
  ledger: Pick<Ledger, 'list'>
  jobNames: readonly string[]
  queues: readonly string[]
}

const perPage = 50

export function createJobsPage(options: JobsOptions): DashboardPage {
  const active = `${home}/jobs`
  return {
    nav: { href: active, label: 'Jobs' },
    register: (server, shell) => {
      server.get('/jobs', async (request, reply) => {
        const id = fieldOf(queryOf(request), 'id')
        if (id !== undefined && isId(id)) return reply.redirect(link(`/jobs/${id}`), 303)
        const filter = filterOf(request)
        const page = await options.ledger.list({ ...filter, limit: perPage })
        const content = html`${filterForm(options, filter, id)}
<div data-live="jobs">${jobTable(page, filter, shell.now())}</div>`
        return shell.send(request, reply, {
          title: 'Jobs',
          active,
          live: filter.cursor === undefined,
          content,
        })
      })
    },
  }
}

type Filter = Omit<JobFilter, 'limit'>

function filterOf(request: FastifyRequest): Filter {
  const query = queryOf(request)
  const [state, name] = [fieldOf(query, 'state'), fieldOf(query, 'name')]
  const [queue, cursor] = [fieldOf(query, 'queue'), fieldOf(query, 'cursor')]
  return {
    ...(isJobState(state) ? { state } : {}),
    ...(name === undefined ? {} : { name }),
    ...(queue === undefined ? {} : { queue }),
    ...(cursor === undefined ? {} : { cursor }),
  }
}

function filterForm({ jobNames, queues }: JobsOptions, filter: Filter, unknownId: string | undefined): Html {
  return html`<form class="filter" method="get" action="${link('/jobs')}">
  ${choice({ name: 'state', label: 'State', values: jobStates, chosen: filter.state })}
  ${choice({ name: 'name', label: 'Job', values: jobNames, chosen: filter.name })}
  ${choice({ name: 'queue', label: 'Queue', values: queues, chosen: filter.queue })}
  <div><label for="filter-id">Or an id</label>
    <input id="filter-id" name="id" value="${unknownId}" autocomplete="off" spellcheck="false"></div>
  <button>Show</button>
</form>
${unknownId !== undefined && html`<p class="notice notice-bad" role="alert">That is not the id of a job.</p>`}`
}

interface Choice {
  name: string
  label: string
  values: readonly string[]
  chosen: string | undefined
}

/** What is chosen is offered also when this version does not know it: old jobs keep their names. */
export function choice({ name, label, values, chosen }: Choice): Html {
  const all = chosen === undefined || values.includes(chosen) ? values : [chosen, ...values]
  return html`<div><label for="filter-${name}">${label}</label>
    <select id="filter-${name}" name="${name}"><option value="">any</option>${all.map(
      (value) => html`<option value="${value}"${value === chosen ? html` selected` : ''}>${value}</option>`,
    )}</select></div>`
}

function jobTable(page: JobPage, filter: Filter, now: number): Html {
  return html`${table({
    caption: filter.state === undefined ? 'Jobs, the newest first' : `Jobs that are ${filter.state}`,
    columns: [
      { label: 'Job' },
      { label: 'State' },
      { label: 'Name' },
      { label: 'Queue' },
      { label: 'Attempts', figure: true },
      { label: 'Progress' },
      { label: 'When' },
    ],
    rows: page.jobs.map((job) => ({
      cells: [
        jobLink(job.id),
        stateMark(job.state),
        job.name,
        job.queue,
        html`${figure(job.attempts)} of ${figure(job.maxAttempts)}`,
        progressOf(job),
        whenOf(job, now),
      ],
    })),
    empty: emptyText(page),
  })}
${pagesNav(page, filter)}`
}

const emptyText = (page: JobPage): string =>
  page.cursor === undefined
    ? 'No job matches.'
    : 'None matches among those looked through so far; there are more.'

/** The instant that matters in its state. */
function whenOf(job: JobView, now: number): Html {
  if (job.finishedAt !== undefined) return html`ended ${instant(job.finishedAt, now)}`
  if (job.state === 'active') return html`started ${instant(job.startedAt, now)}`
  if (job.state === 'delayed') return html`due ${instant(job.runAt, now)}`
  return html`accepted ${instant(job.enqueuedAt, now)}`
}

function pagesNav(page: JobPage, { cursor, ...filter }: Filter): Html {
  if (cursor === undefined && page.cursor === undefined) return html``
  return html`<nav class="pages" aria-label="Pages of the list">
  ${cursor !== undefined && html`<a href="${link('/jobs', filter)}">First page</a>`}
  ${page.cursor !== undefined && html`<a href="${link('/jobs', { ...filter, cursor: page.cursor })}">Next page</a>`}
</nav>`
}
