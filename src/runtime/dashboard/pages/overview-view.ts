import type { ListedNode } from '../../../platform/processes/node-list.ts'
import type { QueueCounts } from '../../../platform/queues/backend.ts'
import type { LedgerSummary } from '../../../platform/queues/ledger.ts'
import type { QueuesReading, Reconciliation, ScheduleView } from '../../../platform/queues/queue-figures.ts'
import { duration, figure, instant, lowerBound, size } from '../figures.ts'
import { type Hole, type Html, html } from '../html.ts'
import { link } from '../links.ts'
import type { Reading } from '../reading.ts'
import { whenRead } from '../reading-view.ts'
import { stateMark } from '../states.ts'
import { facts, table } from '../table.ts'
import type { Overview } from './overview.ts'

export function renderOverview(overview: Overview, now: number): Html {
  const { summary, queues, nodes, schedules } = overview
  return html`
<section aria-labelledby="jobs-now" data-live="figures">
  <h2 id="jobs-now">Jobs</h2>
  ${whenRead(summary, now, renderSummary)}
</section>
${linesOf(overview)}
<div data-live="queues">${whenRead(queues, now, (value) => renderQueues(value, overview.entries))}</div>
<section aria-labelledby="engine" data-live="engine">
  <h2 id="engine">Stores</h2>
  ${renderStores(overview, now)}
</section>
<div data-live="nodes">${whenRead(nodes, now, (value) => renderNodes(value, now))}</div>
<div data-live="schedules">${whenRead(schedules, now, (value) => renderSchedules(value, now))}</div>`
}

/** One line of each area that stands on pages of its own. */
function linesOf({ lines }: Overview): Hole {
  if (lines.length === 0) return ''
  return html`<section aria-labelledby="areas" data-live="areas">
  <h2 id="areas">Areas</h2>
  ${facts(
    lines.map(({ label, href, reading }) => [
      html`<a href="${href}">${label}</a>`,
      reading.ok
        ? reading.value
        : html`${stateMark('unknown')} could not be read (<code>${reading.code}</code>)`,
    ]),
  )}
</section>`
}

/** Counting stops here; see the ledger's summary. */
const countedExactly = 100_000

function renderSummary({ states, oldestWaitingMs, perMinute, exact }: LedgerSummary): Html {
  const state = (
    name: keyof typeof states,
  ): Html => html`<a class="tile" href="${link('/jobs', { state: name })}">
    <span class="tile-label">${stateMark(name)}</span><span class="tile-figure">${figure(states[name], exact)}</span></a>`
  const rate = (label: string, value: number): Html => html`<div class="tile">
    <span class="tile-label">${label}</span>
    <span class="tile-figure">${figure(value, value < countedExactly)}</span><span class="tile-unit">in the last minute</span></div>`
  return html`<div class="tiles">
  ${rate('Accepted', perMinute.accepted)}${rate('Completed', perMinute.completed)}${rate('Failed', perMinute.failed)}
  <div class="tile"><span class="tile-label">Oldest waiting</span>
    <span class="tile-figure">${duration(oldestWaitingMs)}</span><span class="tile-unit">the lag</span></div>
</div>
<div class="tiles">
  ${state('waiting')}${state('delayed')}${state('active')}${state('failed')}${state('completed')}${state('cancelled')}
</div>
${!exact && html`<p class="help">≈ marks estimates: there are more rows than are counted.</p>`}`
}

function renderQueues(
  { queues, unfinishedExact, failedExact }: QueuesReading,
  entries: Map<string, Reading<QueueCounts>>,
): Html {
  const count = (value: number, queue: string, state: string): Html => {
    const shown = lowerBound(value, state === 'failed' ? failedExact : unfinishedExact)
    return value === 0 ? shown : html`<a href="${link('/jobs', { queue, state })}">${shown}</a>`
  }
  return html`${table({
    caption: 'Queues',
    columns: [
      { label: 'Queue' },
      { label: 'Waiting', figure: true },
      { label: 'Delayed', figure: true },
      { label: 'Active', figure: true },
      { label: 'Failed', figure: true },
      { label: 'Oldest waiting', figure: true },
      { label: 'Entries in the engine' },
    ],
    rows: queues.map((each) => ({
      cells: [
        each.queue,
        count(each.waiting, each.queue, 'waiting'),
        count(each.delayed, each.queue, 'delayed'),
        count(each.active, each.queue, 'active'),
        count(each.failed, each.queue, 'failed'),
        each.waiting === 0 && !unfinishedExact ? 'not known' : duration(each.oldestWaitingMs),
        renderEntries(entries.get(each.queue)),
      ],
    })),
    empty: 'No job names a queue.',
  })}<p class="help">Figures are those of the rows in Postgres, which are the truth. The engine's entries carry only keys; work
    without a row stands there alone.${!(unfinishedExact && failedExact) && ' ≥ marks where counting stopped: there are more rows than are counted.'}</p>`
}

function renderEntries(reading: Reading<QueueCounts> | undefined): Hole {
  if (!reading) return 'no job of this version uses the queue'
  if (!reading.ok) return html`${stateMark('not reachable')} <code>${reading.code}</code>`
  const { waiting, delayed, active, failed } = reading.value
  return `${waiting} waiting, ${delayed} delayed, ${active} active, ${failed} failed`
}

function renderStores({ engine, summary, reconciliation }: Overview, now: number): Html {
  const reached = (reading: Reading<unknown>, detail: Hole): Html =>
    reading.ok
      ? html`${stateMark('reachable')} ${detail}`
      : html`${stateMark('not reachable')} <code>${reading.code}</code>`
  const { reach } = engine
  const answered = reach.ok && html`answered in ${duration(Math.max(1, reach.value.ms))}`
  const name = engine.kind === 'redis' ? 'BullMQ on Redis' : 'BullMQ on Postgres'
  return html`${facts([
    ['Postgres', reached(summary, 'holds every job')],
    [`Queue engine, ${name}`, reached(reach, answered)],
    ['Left for the reconciler', leftOf(reconciliation, now)],
  ])}${
    !reach.ok &&
    html`<p class="notice notice-bad" role="alert">The queue engine is away. Jobs are accepted all the same and run when it is back.</p>`
  }`
}

function leftOf(reading: Reading<Reconciliation>, now: number): Html {
  if (!reading.ok) return html`not known (<code>${reading.code}</code>)`
  const { unqueued, exact, refilledAt } = reading.value
  return html`${lowerBound(unqueued, exact)} not handed to the engine yet${
    refilledAt !== undefined && html`; it was last filled anew ${instant(refilledAt, now)}`
  }`
}

function renderNodes(nodes: ListedNode[], now: number): Html {
  const dead = nodes.filter((node) => node.dead).length
  return html`${table({
    caption: 'Nodes',
    columns: [
      { label: 'Node' },
      { label: 'State' },
      { label: 'Heartbeat' },
      { label: 'Started' },
      { label: 'Version' },
      { label: 'Children' },
    ],
    rows: nodes.map((node) => ({
      bad: node.dead,
      cells: [
        html`<strong>${node.kind}</strong> <span class="id">${node.host}:${node.pid}</span>`,
        node.dead
          ? html`${stateMark('dead')} <span class="help">was ${node.state}</span>`
          : stateMark(node.state),
        heartbeatOf(node),
        instant(node.startedAt, now),
        node.version,
        renderChildren(node),
      ],
    })),
    empty: 'No process has written a heartbeat. Start a worker with `baton worker`.',
  })}${
    dead > 0 &&
    html`<p class="help">A dead node has been silent for more than 4 s; its jobs are taken over. Its row goes after a day.</p>`
  }`
}

/** Not turned by the script: its age is told by the clock of the database, which may differ from ours. */
function heartbeatOf({ heartbeatAt, heartbeatAgeMs }: ListedNode): Html {
  const age = heartbeatAgeMs < 1_000 ? 'now' : `${duration(heartbeatAgeMs)} ago`
  return html`<time datetime="${heartbeatAt}" title="${heartbeatAt}" data-absolute>${age}</time>`
}

function renderChildren({ children, dead }: ListedNode): Hole {
  if (children.length === 0) return html`<span class="help">none</span>`
  if (dead) {
    const active = children.reduce((sum, child) => sum + (child.active ?? 0), 0)
    return html`<span class="help">${children.length} with ${figure(active)} active when last heard of</span>`
  }
  return html`<ul class="plain">${children.map(
    (child) =>
      html`<li>${stateMark(child.state)} ${figure(child.active ?? 0)} active <span class="help">pid ${child.pid ?? '–'}, ${size(child.rssBytes ?? 0)}</span></li>`,
  )}</ul>`
}

function renderSchedules(schedules: ScheduleView[], now: number): Hole {
  if (schedules.length === 0) return ''
  return table({
    caption: 'Schedules',
    columns: [
      { label: 'Schedule' },
      { label: 'Job' },
      { label: 'Rule' },
      { label: 'Next' },
      { label: 'Last' },
    ],
    rows: schedules.map((each) => ({
      cells: [
        each.name,
        each.job,
        html`<code>${each.cron}</code> ${each.timeZone}`,
        instant(each.nextAt, now),
        instant(each.lastAt, now),
      ],
    })),
    empty: '',
  })
}
