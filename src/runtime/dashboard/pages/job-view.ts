import type { AuditRecord } from '../../../platform/access.ts'
import type { JobDetails } from '../../../platform/queues/job-details.ts'
import type { JobView } from '../../../platform/queues/ledger.ts'
import { duration, figure, instant, size } from '../figures.ts'
import { type Hole, type Html, html } from '../html.ts'
import { link } from '../links.ts'
import { progressOf } from '../progress-view.ts'
import type { Reading } from '../reading.ts'
import { shapeOf } from '../shape.ts'
import { stateMark } from '../states.ts'
import { facts, table } from '../table.ts'

export interface JobScene {
  job: JobView
  details: Reading<JobDetails | undefined>
  history: Reading<AuditRecord[]>
  /** As the handler gets it; a large one is read from the stores of bodies. */
  payload: Reading<unknown>
  notice: Html
  /** Operators see values, viewers only the keys of them. */
  isOperator: boolean
  token: Html
  now: number
}

export function renderJob(scene: JobScene): Html {
  const { job, details, isOperator } = scene
  const known = details.ok ? details.value : undefined
  return html`${scene.notice}
<div data-live="job">
<p class="state-line">${stateMark(job.state)} <span class="id">${job.id}</span></p>
${known?.cancelRequestedAt !== undefined && job.state === 'active' && html`<p class="notice">Its cancel was asked for ${instant(known.cancelRequestedAt, scene.now)}; its handler has not let go yet.</p>`}
${factsOf(scene, known)}
${!details.ok && html`<p class="notice notice-bad">The rest of the row could not be read (<code>${details.code}</code>).</p>`}
${job.error && errorOf(job)}
</div>
${isOperator && actionsOf(scene)}
<h2>Payload</h2>
${payloadOf(scene)}
${job.result !== undefined && html`<h2>Result</h2>${valueOf(job.result, isOperator)}`}
${job.progress !== undefined && typeof job.progress !== 'number' && html`<h2>Progress</h2>${valueOf(job.progress, isOperator)}`}
${known?.checkpoint && checkpointOf(known.checkpoint, isOperator)}
${historyOf(scene)}`
}

function factsOf({ job, now }: JobScene, known: JobDetails | undefined): Html {
  return facts([
    ['Queue', html`<a href="${link('/jobs', { queue: job.queue })}">${job.queue}</a>`],
    ['Attempts used', html`${figure(job.attempts)} of ${figure(job.maxAttempts)}`],
    [
      'Interruptions',
      html`${figure(job.interruptions)}${known && html` (crashes: ${figure(known.crashes)})`}`,
    ],
    ['Progress', progressOf(job)],
    ['Accepted', instant(job.enqueuedAt, now)],
    ['Due', instant(job.runAt, now)],
    ['Started', instant(job.startedAt, now)],
    ['Ended', instant(job.finishedAt, now)],
    ['Last run', lastRunOf(job, now)],
    ['Priority', figure(job.priority)],
    ['Retried by hand', figure(job.retried)],
    ...idsOf(job, known),
    ...(known?.queued === false ? [['Queue entry', 'not handed to the queue engine yet'] as const] : []),
  ])
}

function lastRunOf({ state, startedAt, finishedAt }: JobView, now: number): string {
  if (startedAt === undefined) return '–'
  const took = (end: number): string => duration(Math.max(0, end - Date.parse(startedAt)))
  if (finishedAt !== undefined) return `took ${took(Date.parse(finishedAt))}`
  return state === 'active' ? `${took(now)} so far` : '–'
}

/** Those that there are. */
const idsOf = (job: JobView, known: JobDetails | undefined): (readonly [string, Hole])[] =>
  Object.entries({
    Runner: job.runner,
    'Dedupe key': known?.dedupeKey,
    Request: known?.origin?.requestId,
    Trace: known?.origin?.traceparent,
  })
    .filter(([, id]) => id !== undefined)
    .map(([term, id]) => [term, html`<span class="id">${id}</span>`] as const)

function errorOf({ error, state, attempts }: JobView): Html {
  if (!error) return html``
  const heading = state === 'failed' || state === 'cancelled' ? 'Error' : `Error of attempt ${attempts}`
  return html`<h2>${heading}</h2>
<p class="error"><code>${error.code}</code> ${error.message}</p>
${
  error.faults &&
  html`<ul>${error.faults.map((fault) => html`<li><code>${fault.path === '' ? '/' : fault.path}</code> ${fault.message}</li>`)}</ul>`
}
${error.stack !== undefined && html`<details><summary>Stack</summary><pre tabindex="0">${error.stack}</pre></details>`}`
}

function actionsOf({ job, token }: JobScene): Html {
  const ended = job.finishedAt !== undefined
  if (ended) {
    return html`<form class="actions" method="post" action="${link(`/jobs/${job.id}/retry`)}">${token}
  <button>Retry this job</button> <span class="help">Its attempts begin anew; payload and history stay.</span></form>`
  }
  return html`<details class="confirm"><summary>Cancel this job…</summary>
<form class="actions" method="post" action="${link(`/jobs/${job.id}/cancel`)}">${token}
  <p>${job.state === 'active' ? 'It runs: its handler is asked to stop, and what it did so far stays done.' : 'It will not run.'}</p>
  <button class="danger">Cancel the job</button></form></details>`
}

/** More than this is cut: the page must stay a page. */
const maxShown = 20_000

function valueOf(value: unknown, isOperator: boolean): Html {
  if (!isOperator)
    return html`<pre tabindex="0">${shapeOf(value)}</pre><p class="help">Viewers see the keys; operators see the values.</p>`
  const text = JSON.stringify(value, null, 2) ?? 'null'
  const cut = text.length > maxShown
  return html`<pre tabindex="0">${cut ? text.slice(0, maxShown) : text}</pre>${
    cut && html`<p class="help">Cut: ${figure(maxShown)} of ${figure(text.length)} characters are shown.</p>`
  }`
}

function payloadOf({ job, payload, isOperator }: JobScene): Html {
  if (payload.ok) return valueOf(payload.value, isOperator)
  return html`${valueOf(job.payload, isOperator)}
<p class="notice notice-bad">It lies in the stores of bodies and could not be read (<code>${payload.code}</code>).</p>`
}

const checkpointOf = ({ bytes, value }: { bytes: number; value: unknown }, isOperator: boolean): Html =>
  html`<h2>Checkpoint</h2>
<p class="help">${size(bytes)}; a run that is interrupted goes on from here.</p>
${value === undefined ? html`<p class="help">It is too large to be shown.</p>` : valueOf(value, isOperator)}`

function historyOf({ history, now }: JobScene): Html {
  if (!history.ok)
    return html`<p class="notice notice-bad">The history could not be read (<code>${history.code}</code>).</p>`
  return table({
    caption: 'What people did to it',
    columns: [{ label: 'When' }, { label: 'Who' }, { label: 'What' }],
    rows: history.value.map((entry) => ({ cells: [instant(entry.at, now), entry.actor, entry.action] })),
    empty: 'Nobody has retried or cancelled this job.',
  })
}
