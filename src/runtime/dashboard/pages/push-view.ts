import { type InspectedPush, pushStates } from '../../../domain/push/inspection.ts'
import type { Milestone } from '../../../domain/push/push.ts'
import type { AuditRecord } from '../../../platform/access.ts'
import { duration, figure, instant, lowerBound, size } from '../figures.ts'
import { type Html, html } from '../html.ts'
import { deviceLink, link } from '../links.ts'
import { stateMark } from '../states.ts'
import { facts, table } from '../table.ts'

export interface PushScene {
  push: InspectedPush
  page: { device?: string; after?: string }
  history: AuditRecord[]
  notice: Html
  /** Operators see the payload, viewers only how large it is. */
  isOperator: boolean
  token: Html
  now: number
}

/** What no provider has been given yet can be taken back. */
const withdrawable = ['pending', 'delivered', 'due', 'undeliverable'] as const

export function renderPush(scene: PushScene): Html {
  const { push, isOperator } = scene
  return html`${scene.notice}
<div data-live="push">
<p class="state-line"><span class="id">${push.id}</span></p>
<ul class="plain inline">${pushStates
    .filter((state) => (push.states[state] ?? 0) > 0)
    .map(
      (state) => html`<li>${stateMark(state)} ${lowerBound(push.states[state] ?? 0, push.exact)}</li>`,
    )}</ul>
${factsOf(scene)}
</div>
${isOperator && withdrawForm(scene)}
${isOperator && payloadOf(push)}
<div data-live="devices">${devicesOf(scene)}</div>
${pagesOf(scene)}
${historyOf(scene)}`
}

function factsOf({ push, now }: PushScene): Html {
  const { payload } = push
  const stored = payload?.apart && html` <span class="help">in the stores of bodies</span>`
  return facts([
    ['Accepted', instant(push.acceptedAt, now)],
    ['Expires', instant(push.expiresAt, now)],
    [
      'Priority',
      push.priority
        ? 'priority: the cloud gets it when it is not confirmed'
        : 'normal: only for those who listen',
    ],
    ['Topic', push.topic ?? '–'],
    ['Payload', payload ? html`${size(payload.bytes)}${stored}` : 'none'],
  ])
}

function withdrawForm({ push, token }: PushScene): Html {
  const open = withdrawable.reduce((sum, state) => sum + (push.states[state] ?? 0), 0)
  if (open === 0 && push.exact)
    return html`<p class="help">Nothing of it can be withdrawn: it is closed, or a provider was given it.</p>`
  return html`<details class="confirm"><summary>Withdraw this push…</summary>
<form class="actions" method="post" action="${link(`/pushes/${push.id}/withdraw`)}">${token}
  <p>It is taken back for ${lowerBound(open, push.exact)} of its devices: those that no provider was given it for.
    A device that has shown it goes on showing it.</p>
  <button class="danger">Withdraw the push</button></form></details>`
}

/** More than this is cut: the page must stay a page. */
const maxShown = 20_000

function payloadOf({ payload }: InspectedPush): Html {
  if (!payload || payload.apart) return html``
  const cut = payload.text.length > maxShown
  return html`<details><summary>Payload…</summary><pre tabindex="0">${payload.text.slice(0, maxShown)}</pre>${
    cut &&
    html`<p class="help">Cut: ${figure(maxShown)} of ${figure(payload.text.length)} characters are shown.</p>`
  }</details>`
}

function devicesOf({ push, page, now }: PushScene): Html {
  return table({
    caption: page.device === undefined ? 'Devices, in the order of their ids' : 'For this device',
    columns: [{ label: 'Device' }, { label: 'State' }, { label: 'Delivery log' }],
    rows: push.devices.map(({ device, state, milestones }) => ({
      cells: [deviceLink(device), stateMark(state), logOf(milestones, now)],
    })),
    empty: page.device === undefined ? 'It went to no further device.' : 'It did not go to this device.',
  })
}

function logOf(milestones: Milestone[], now: number): Html {
  const [first] = milestones
  if (!first) return html``
  return html`<ol class="log">${milestones.map((each, index) => {
    const when =
      index === 0 ? instant(each.at, now) : html`<span title="${each.at}">+${sinceOf(first, each)}</span>`
    const details = detailsOf(each)
    return html`<li><span class="when">${when}</span> ${each.name}${details !== '' && html` <span class="help">${details}</span>`}</li>`
  })}</ol>`
}

const sinceOf = (first: Milestone, each: Milestone): string =>
  duration(Math.max(0, Date.parse(each.at) - Date.parse(first.at)))

const maxDetail = 120

function detailsOf({ name: _name, at: _at, priority: _priority, ...details }: Milestone): string {
  return Object.entries(details)
    .map(([key, value]) =>
      `${key} ${typeof value === 'string' ? value : JSON.stringify(value)}`.slice(0, maxDetail),
    )
    .join(', ')
}

function pagesOf({ push, page }: PushScene): Html {
  const last = push.devices.at(-1)
  const isNarrowed = page.device !== undefined || page.after !== undefined
  if (!isNarrowed && !push.more) return html``
  return html`<nav class="pages" aria-label="Pages of its devices">
  ${isNarrowed && html`<a href="${link(`/pushes/${push.id}`)}">All its devices</a>`}
  ${push.more && last && html`<a href="${link(`/pushes/${push.id}`, { after: last.device })}">Next page</a>`}
</nav>`
}

const historyOf = ({ history, now }: PushScene): Html =>
  table({
    caption: 'What people did to it',
    columns: [{ label: 'When' }, { label: 'Who' }, { label: 'What' }],
    rows: history.map((entry) => ({ cells: [instant(entry.at, now), entry.actor, entry.action] })),
    empty: 'Nobody has withdrawn it on the dashboard.',
  })
