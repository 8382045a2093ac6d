import type { PushBacklog, PushFigures, RecentPushes } from '../../../domain/push/figures.ts'
import { type ListedPush, pushStates } from '../../../domain/push/inspection.ts'
import type { PushState } from '../../../domain/push/push.ts'
import { duration, figure, instant, lowerBound } from '../figures.ts'
import { type Html, html } from '../html.ts'
import { deviceLink, link, pushLink } from '../links.ts'
import type { Reading } from '../reading.ts'
import { whenRead } from '../reading-view.ts'
import { stateMark } from '../states.ts'
import { facts, table } from '../table.ts'
import { choice } from './jobs.ts'
import type { PushListFilter } from './pushes.ts'

export interface PushesScene {
  figures: Reading<PushFigures>
  listens: number | undefined
  filter: PushListFilter
  pushes: ListedPush[]
  notice: Html
  isFirst: boolean
  /** The place of the next page. */
  next?: string
  now: number
}

/** Workers look at what is due every 2 s; what lies longer than this is stuck, ms. */
const patienceMs = 10_000
const openStates = ['pending', 'delivered', 'due', 'sending', 'sent', 'undeliverable'] as const
const closedStates = ['confirmed', 'expired', 'withdrawn', 'replaced'] as const

export function renderPushes(scene: PushesScene): Html {
  const { figures, now } = scene
  return html`${scene.notice}
<div data-live="pushes-figures">${whenRead(figures, now, (value) => renderFigures(value, scene))}</div>
${filterForm(scene)}
<div data-live="pushes">${listOf(scene)}</div>
${pagesOf(scene)}`
}

export const overviewOfPushes = (backlog: PushBacklog): Html =>
  isStuck(backlog)
    ? html`${stateMark('overdue')} ${backlogText(backlog)}`
    : html`${stateMark('up')} nothing is overdue${backlog.due > 0 && html`; ${lowerBound(backlog.due, backlog.exact)} due now`}`

const isStuck = ({ oldestMs }: PushBacklog): boolean => oldestMs > patienceMs

const backlogText = ({ due, exact, oldestMs }: PushBacklog): Html =>
  html`${lowerBound(due, exact)} due, the oldest for ${duration(oldestMs)}`

function renderFigures(
  { open, backlog, recent, devices, transports }: PushFigures,
  scene: PushesScene,
): Html {
  const state = (name: PushState): Html => html`<a class="tile" href="${link('/pushes', { state: name })}">
    <span class="tile-label">${stateMark(name)}</span><span class="tile-figure">${lowerBound(open.states[name] ?? 0, open.exact)}</span></a>`
  return html`<h2>Open</h2>
<div class="tiles">
  <div class="tile"><span class="tile-label">Open in all</span>
    <span class="tile-figure">${figure(open.total, open.exact)}</span><span class="tile-unit">not closed yet</span></div>
  ${openStates.map(state)}
</div>
${!open.exact && html`<p class="help">≈ marks an estimate and ≥ what was found among the first 10,000: there are more than are counted.</p>`}
${facts([
  ['Due now', dueNow(backlog)],
  ['Accepted', html`${lowerBound(recent.lastMinute, recent.lastMinuteExact)} in the last minute`],
  ['Devices', html`<a href="${link('/devices')}">${figure(devices.count, devices.exact)}</a>`],
  ['Listens', listensOf(scene.listens)],
])}
${recentOf(recent, scene.now)}
${table({
  caption: 'Transports',
  columns: [{ label: 'Kind' }, { label: 'Alive', figure: true }, { label: 'Dead', figure: true }],
  rows: transports.map(({ kind, living, dead, exact }) => ({
    cells: [kind, figure(living, exact), figure(dead, exact)],
  })),
  empty: 'No device has a transport: only those that listen are reached.',
})}`
}

function dueNow(backlog: PushBacklog): Html {
  if (backlog.due === 0) return html`${stateMark('up')} none: the workers keep up`
  const all = html`<a href="${link('/pushes', { state: 'overdue' })}">${backlogText(backlog)}</a>`
  if (!isStuck(backlog)) return all
  return html`${stateMark('overdue')} ${all}. <span class="help">Workers look every 2 s: is one running?</span>`
}

const listensOf = (listens: number | undefined): Html =>
  listens === undefined
    ? html`<span class="help">not known to this process</span>`
    : html`${figure(listens)} open <span class="help">in this web process; of others each tells its own (<code>baton_push_listens</code>)</span>`

function recentOf({ rows, since, states }: RecentPushes, now: number): Html {
  if (rows === 0) return html`<h2>The newest</h2><p class="help">No push has been accepted yet.</p>`
  const shown = [...openStates, ...closedStates].filter((state) => (states[state] ?? 0) > 0)
  return html`<h2>What became of the newest ${figure(rows)}</h2>
<p class="help">Accepted since ${instant(since, now)}; a push counts once for each device.</p>
<ul class="plain inline">${shown.map(
    (state) =>
      html`<li>${stateMark(state)} ${figure(states[state] ?? 0)} <span class="help">${shareOf(states[state] ?? 0, rows)}</span></li>`,
  )}</ul>`
}

function shareOf(part: number, all: number): string {
  const share = (100 * part) / all
  return share < 1 ? '< 1 %' : `${Math.round(share)} %`
}

function filterForm({ filter }: PushesScene): Html {
  return html`<form class="filter" method="get" action="${link('/pushes')}">
  ${choice({ name: 'state', label: 'State', values: ['overdue', ...pushStates], chosen: filter })}
  <div><label for="filter-device">Or a device</label><input id="filter-device" name="device" autocomplete="off" spellcheck="false"></div>
  <div><label for="filter-push">Or the id of a push</label><input id="filter-push" name="id" autocomplete="off" spellcheck="false"></div>
  <button>Show</button>
</form>
<form class="filter" method="get" action="${link('/devices')}">
  <div><label for="filter-user">Devices of a user</label><input id="filter-user" name="user" autocomplete="off" spellcheck="false"></div>
  <button>Show</button>
</form>`
}

function listOf({ filter, pushes, next, now }: PushesScene): Html {
  return table({
    caption: captionOf(filter),
    columns: pushColumns,
    rows: pushes.map((push) => ({
      cells: [pushLink(push.id, push.device), deviceLink(push.device), ...cellsOf(push, now)],
    })),
    empty:
      next === undefined
        ? 'No push matches.'
        : 'None matches among those looked through so far; there are more.',
  })
}

function captionOf(filter: PushListFilter): string {
  if (filter === undefined) return 'Pushes, the newest first'
  return filter === 'overdue'
    ? 'Pushes that are overdue, the oldest first'
    : `Pushes that are ${filter}, the newest first`
}

const stateColumns = [{ label: 'State' }, { label: 'Topic' }, { label: 'Accepted' }, { label: 'What next' }]
const pushColumns = [{ label: 'Push' }, { label: 'Device' }, ...stateColumns]
/** Of one device, which the page is about. */
export const devicePushColumns = [{ label: 'Push' }, ...stateColumns]

export const cellsOf = (push: ListedPush, now: number): Html[] => [
  html`${stateMark(push.state)}${!push.priority && html` <span class="help">normal</span>`}`,
  html`${push.topic ?? '–'}`,
  instant(push.acceptedAt, now),
  nextOf(push, now),
]

/** The instant that matters in its state. */
function nextOf({ state, closedAt, dueAt, expiresAt }: ListedPush, now: number): Html {
  if (closedAt !== undefined) return html`closed ${instant(closedAt, now)}`
  const endsWith = dueAt >= expiresAt
  if (Date.parse(dueAt) < now - patienceMs) return html`<strong>overdue</strong>: due ${instant(dueAt, now)}`
  if (endsWith) return html`expires ${instant(expiresAt, now)}`
  return html`${whatIsDue[state] ?? 'due'} ${instant(dueAt, now)}`
}

const whatIsDue: Partial<Record<PushState, string>> = {
  pending: 'goes to the cloud',
  delivered: 'goes to the cloud unless confirmed,',
  due: 'tried',
  sending: 'lease ends',
  sent: 'escalates',
}

function pagesOf({ filter, isFirst, next }: PushesScene): Html {
  if (isFirst && next === undefined) return html``
  return html`<nav class="pages" aria-label="Pages of the list">
  ${!isFirst && html`<a href="${link('/pushes', { state: filter })}">First page</a>`}
  ${next !== undefined && html`<a href="${link('/pushes', { state: filter, cursor: next })}">Next page</a>`}
</nav>`
}
