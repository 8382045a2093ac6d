import type { BulkRetry } from '../../../platform/queues/bulk-retry.ts'
import type { JobPage } from '../../../platform/queues/ledger.ts'
import { duration, figure, instant, lowerBound } from '../figures.ts'
import { type Html, html } from '../html.ts'
import { jobLink, link } from '../links.ts'
import { stateMark } from '../states.ts'
import { table } from '../table.ts'
import { choice } from './jobs.ts'

export interface FailedFilterFields {
  name?: string
  queue?: string
}

export interface FailedScene {
  page: JobPage
  retries: BulkRetry[]
  filter: FailedFilterFields
  cursor: string | undefined
  jobNames: readonly string[]
  queues: readonly string[]
  notice: Html
  isOperator: boolean
  token: Html
  now: number
}

/** Jobs per second that a retry of all may be given. */
export const rates = [10, 1, 50, 200, 1_000] as const

export function renderFailed(scene: FailedScene): Html {
  const { filter, isOperator } = scene
  return html`${scene.notice}
<form class="filter" method="get" action="${link('/failed')}">
  ${choice({ name: 'name', label: 'Job', values: scene.jobNames, chosen: filter.name })}
  ${choice({ name: 'queue', label: 'Queue', values: scene.queues, chosen: filter.queue })}
  <button>Show</button>
</form>
<div data-live="retries">${retriesOf(scene)}</div>
${isOperator && scene.page.jobs.length > 0 && retryAllForm(scene)}
${
  isOperator
    ? html`<form method="post" action="${link('/failed/retry')}">${scene.token}${hidden(filter)}${listOf(scene)}${
        scene.page.jobs.length > 0 && html`<p class="actions"><button>Retry selected</button></p>`
      }</form>`
    : listOf(scene)
}
${pagesOf(scene)}`
}

const hidden = (filter: FailedFilterFields): Html =>
  html`${Object.entries(filter).map(([name, value]) => html`<input type="hidden" name="${name}" value="${value}">`)}`

const wordsOf = ({ name, queue }: FailedFilterFields): string =>
  [name === undefined ? 'all jobs' : `jobs named ${name}`, queue === undefined ? '' : `of the queue ${queue}`]
    .join(' ')
    .trim()

function retryAllForm({ filter, token }: FailedScene): Html {
  return html`<details class="confirm"><summary>Retry all that match…</summary>
<form class="actions" method="post" action="${link('/failed/retry-all')}">${token}${hidden(filter)}
  <p>Retries <strong>${wordsOf(filter)}</strong> that have failed until now, the oldest first. It goes on in the background when
    you leave the page. Jobs that fail again are not retried again.</p>
  <p><label for="rate">At most</label> <select id="rate" name="rate">${[...rates]
    .toSorted((a, b) => a - b)
    .map(
      (rate) =>
        html`<option value="${rate}"${rate === rates[0] ? html` selected` : ''}>${figure(rate)}</option>`,
    )}</select> jobs a second</p>
  <button>Begin</button></form></details>`
}

function listOf({ page, isOperator, now }: FailedScene): Html {
  return table({
    caption: 'Failed jobs, the last first',
    columns: [
      ...(isOperator ? [{ label: 'Select', quiet: true }] : []),
      { label: 'Job' },
      { label: 'Name' },
      { label: 'Queue' },
      { label: 'Attempts', figure: true },
      { label: 'Error' },
      { label: 'Failed' },
      ...(isOperator ? [{ label: 'Retry', quiet: true }] : []),
    ],
    rows: page.jobs.map((job) => ({
      cells: [
        ...(isOperator
          ? [
              html`<label class="box"><input type="checkbox" name="id" value="${job.id}"><span class="unseen">Select ${job.name} ${job.id}</span></label>`,
            ]
          : []),
        jobLink(job.id),
        job.name,
        job.queue,
        figure(job.attempts),
        html`<span class="error"><code>${job.error?.code}</code> ${firstLine(job.error?.message)}</span>`,
        instant(job.finishedAt, now),
        ...(isOperator
          ? [html`<button class="quiet" formaction="${link(`/jobs/${job.id}/retry`)}">Retry</button>`]
          : []),
      ],
    })),
    empty:
      page.cursor === undefined
        ? 'No failed job matches.'
        : 'None matches among those looked through so far; there are more.',
  })
}

const maxMessage = 160
const firstLine = (text = ''): string => {
  const line = text.split('\n', 1)[0] ?? ''
  return line.length > maxMessage ? `${line.slice(0, maxMessage)}…` : line
}

function retriesOf({ retries, isOperator, token, now }: FailedScene): Html {
  if (retries.length === 0) return html``
  return table({
    caption: 'Retries of many',
    columns: [
      { label: 'What' },
      { label: 'State' },
      { label: 'Retried' },
      { label: 'Rate' },
      { label: 'By' },
      { label: 'Begun' },
      { label: 'Stop', quiet: true },
    ],
    rows: retries.map((retry) => ({
      cells: [
        wordsOf(retry),
        stateMark(retry.state),
        progressOfRetry(retry),
        `at most ${retry.perSecond} a second`,
        retry.actor,
        html`${instant(retry.createdAt, now)}`,
        isOperator &&
          retry.state === 'running' &&
          html`<form method="post" action="${link(`/failed/retry-all/${retry.id}/stop`)}">${token}<button class="quiet">Stop</button></form>`,
      ],
    })),
    empty: '',
  })
}

function progressOfRetry({ retried, matched, matchedExact, perSecond, state }: BulkRetry): Html {
  const of = html`${figure(retried)} of ${lowerBound(matched, matchedExact)}`
  if (state !== 'running') return of
  const leftMs = (Math.max(0, matched - retried) / perSecond) * 1_000
  return html`<progress max="${Math.max(1, matched)}" value="${Math.min(retried, matched)}" aria-label="retried"></progress> ${of},
    about ${duration(leftMs)} left`
}

function pagesOf({ page, cursor, filter }: FailedScene): Html {
  if (cursor === undefined && page.cursor === undefined) return html``
  return html`<nav class="pages" aria-label="Pages of the list">
  ${cursor !== undefined && html`<a href="${link('/failed', { ...filter })}">First page</a>`}
  ${page.cursor !== undefined && html`<a href="${link('/failed', { ...filter, cursor: page.cursor })}">Next page</a>`}
</nav>`
}
