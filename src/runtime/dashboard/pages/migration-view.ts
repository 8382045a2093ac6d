import { type Action, offeredActions } from '../../../domain/state/administration.ts'
import type { MigrationView } from '../../../domain/state/migration/view.ts'
import type { AuditRecord } from '../../../platform/access.ts'
import { duration, figure, instant, size } from '../figures.ts'
import { type Hole, type Html, html } from '../html.ts'
import { link } from '../links.ts'
import { stateMark } from '../states.ts'
import { facts, table } from '../table.ts'
import { phaseOf, progressOf } from './states-view.ts'

export interface MigrationScene {
  view: MigrationView
  failed: { device: string; error: string }[]
  history: AuditRecord[]
  notice: Html
  isOperator: boolean
  token: Html
  now: number
}

export function renderMigration(scene: MigrationScene): Html {
  const { view, isOperator } = scene
  return html`${scene.notice}
<div data-live="migration">
<p class="state-line">${phaseOf(view)} <span class="id">${view.id}</span></p>
<p>${progressOf(view)}</p>
${view.error && html`<p class="notice notice-bad" role="alert">It stands still: <code>${view.error.code}</code> ${view.error.message}</p>`}
${view.note !== undefined && html`<p class="notice">${view.note}</p>`}
${stormOf(scene)}
${factsOf(scene)}
</div>
${isOperator && html`<div data-live="actions">${actionsOf(scene)}</div>`}
<div data-live="quarantine">${quarantineOf(view)}</div>
<div data-live="failed">${failedOf(scene)}</div>
${historyOf(scene)}`
}

function factsOf({ view, now }: MigrationScene): Html {
  const { counts, verification, quarantine, stormGuard, scan } = view
  return facts([
    ['From', html`<span class="id">${view.from}</span>`],
    ['To', html`<span class="id">${view.to}</span>`],
    [
      'Moved',
      html`${figure(counts.moved)} devices, ${figure(counts.states)} states, ${figure(counts.links)} links`,
    ],
    [
      'Verified',
      html`${figure(verification.verifiedDevices)} devices; ${figure(verification.unverifiedDevices)} are not yet`,
    ],
    ['Failed', html`${figure(counts.failed)} devices`],
    [
      'Not moved',
      html`${figure(quarantine.held)} states or files of ${figure(quarantine.devices)} devices; ${figure(quarantine.remarks)} moved with a remark`,
    ],
    ['At work', html`${figure(view.engines)} engines`],
    ['Gate', gateLine(view)],
    [
      'Storm guard',
      html`${figure(stormGuard.missed)} devices lack a state; ${shareText(stormGuard.allowedShare)} of those moved are allowed`,
    ],
    ...(stormGuard.admittedParts === undefined
      ? []
      : [['Let in again', admittedOf(stormGuard.admittedParts)] as const]),
    ...(view.rollBack ? [['Brought back', html`${figure(view.rollBack.devices)} devices`] as const] : []),
    ...(scan
      ? [
          [
            'Scan',
            html`${figure(scan.devices)} devices, ${figure(scan.states)} states, ${size(scan.bytes)}; about ${duration(scan.estimateMs)}`,
          ] as const,
        ]
      : []),
    ['Begun', instant(view.createdAt, now)],
    ['Cut over', instant(view.cutOverAt, now)],
    ['Ended', instant(view.finishedAt, now)],
  ])
}

const shareText = (share: number): string => `${Math.round(1_000 * share) / 10} %`

const admittedOf = (parts: number): Html =>
  html`<progress max="100" value="${parts}" aria-label="phones that are let in"></progress> ${figure(parts)} % of the phones`

const beforeCutOver = new Set<MigrationView['phase']>(['scanning', 'scanned', 'copying', 'ready'])

/** Of the two stores, the one that the phones meet. */
function gateLine({ gate, phase, stormGuard: { storm, admittedParts } }: MigrationView): Hole {
  if (gate.closedMs !== undefined) {
    const which = phase === 'rolling-back' ? 'the target' : 'the source'
    return html`${stateMark('closed')} ${which} for ${duration(gate.closedMs)} so far`
  }
  if (beforeCutOver.has(phase)) return html`${stateMark('open')} the source is in use`
  const last =
    gate.lastClosedMs !== undefined && `; it was closed for ${duration(gate.lastClosedMs)} at the cut-over`
  if (phase !== 'watching') return html`–${last}`
  if (admittedParts !== undefined)
    return html`${stateMark('closed')} the target, but for ${admittedParts} % of the phones`
  return storm
    ? html`${stateMark('closed')} the target, by the storm guard`
    : html`${stateMark('open')} the target is in use${last}`
}

/** What the guard saw, and the choice with its numbers. */
function stormOf({ view: { stormGuard }, now }: MigrationScene): Hole {
  const { storm, choice = [] } = stormGuard
  if (!storm) return ''
  return html`<section class="notice notice-bad" role="alert"><h2>${stateMark('storm')} closed the gate ${instant(storm.at, now)}</h2>
<p><progress max="${Math.max(1, storm.moved)}" value="${Math.min(storm.affected, storm.moved)}" aria-label="devices that lack a state"></progress>
  <strong>${figure(storm.affected)} of ${figure(storm.moved)}</strong> moved devices lack a state${!storm.exact && ', counted until the gate closed'}.</p>
<p>Advice: <strong>${storm.advice === 'keep' ? 'keep the target' : 'roll back'}</strong></p>
<ul>${choice.map((line) => html`<li>${line}</li>`)}</ul></section>`
}

interface Offer {
  label: (view: MigrationView) => string
  /** What will happen, before anything is changed. */
  plan: (view: MigrationView) => string
  danger?: boolean
}

const offers: Record<Action, Offer> = {
  resume: {
    label: ({ stormGuard }) =>
      stormGuard.storm ? 'Keep the target, let the phones in by portions' : 'Resume',
    plan: ({ stormGuard, to }) =>
      stormGuard.storm
        ? `Keeps the target (${to}) and lets the phones in by portions; the guard goes on watching.`
        : 'A worker goes on with it.',
  },
  'cut-over': {
    label: () => 'Cut over',
    plan: ({ from, to, counts, quarantine }) =>
      `Closes ${from}: phones get 503 with Retry-After and lose nothing. When nobody writes there any more, the rest is copied and verified, and ${to} is opened. ${counts.moved} devices are moved and verified; ${quarantine.held} states or files and ${counts.failed} failed devices stay behind. Then point Z-Push at the target and reload it. A roll-back stays possible.`,
    danger: true,
  },
  'roll-back': {
    label: () => 'Roll back',
    plan: ({ from, to }) =>
      `Closes ${to}, copies every device that wrote there since the cut-over back to ${from}, verified, and opens that. Then point Z-Push at the source again and reload it.`,
    danger: true,
  },
  finish: {
    label: () => 'End the watch',
    plan: () => 'Ends the watch after the cut-over. A roll-back stays possible.',
  },
  cancel: {
    label: () => 'Cancel',
    plan: ({ from }) =>
      `Ends it. ${from} was never touched; what was copied stays in the target until \`baton state reset\`.`,
    danger: true,
  },
  pause: { label: () => 'Pause', plan: () => 'It stands still after the devices that are under way.' },
}

function actionsOf({ view, token }: MigrationScene): Hole {
  const offered = offeredActions(view)
  if (offered.length === 0) return html`<p class="help">It is over: there is nothing to do.</p>`
  return offered.map((action) => {
    const { label: labelOf, plan, danger } = offers[action]
    const label = labelOf(view)
    return html`<details class="confirm"><summary>${label}…</summary>
<form class="actions" method="post" action="${link(`/states/${view.id}/${action}`)}">${token}
  <p>${plan(view)}</p>
  <button${danger && html` class="danger"`}>${label}</button></form></details>`
  })
}

function quarantineOf({ quarantine, id }: MigrationView): Html {
  const { lines = [], held, remarks } = quarantine
  return html`${table({
    caption: 'Quarantine',
    columns: [
      { label: 'Device' },
      { label: 'What' },
      { label: 'Moved' },
      { label: 'Why' },
      { label: 'Size', figure: true },
      { label: 'Advice' },
    ],
    rows: lines.map((line) => ({
      cells: [
        html`<span class="id">${line.device}</span>`,
        html`<span class="id">${line.name}</span>`,
        line.severity === 'held' ? stateMark('not moved') : html`with a remark`,
        html`<code>${line.code}</code> ${line.about}`,
        size(line.size),
        html`<span class="help">${line.advice}</span>`,
      ],
    })),
    empty: 'Everything could be moved so far.',
  })}${
    held + remarks > lines.length &&
    html`<p class="help">${figure(lines.length)} of ${figure(held + remarks)} are shown; <code>baton state status ${id} --quarantine</code> lists all.</p>`
  }`
}

function failedOf({ failed, view }: MigrationScene): Hole {
  if (failed.length === 0) return ''
  return html`${table({
    caption: 'Devices that failed',
    columns: [{ label: 'Device' }, { label: 'The last try' }],
    rows: failed.map(({ device, error }) => ({
      cells: [html`<span class="id">${device}</span>`, html`<span class="error">${error}</span>`],
    })),
    empty: '',
  })}${view.counts.failed > failed.length && html`<p class="help">${figure(failed.length)} of ${figure(view.counts.failed)} are shown.</p>`}`
}

const historyOf = ({ history, now }: MigrationScene): Html =>
  table({
    caption: 'What people did to it',
    columns: [{ label: 'When' }, { label: 'Who' }, { label: 'What' }],
    rows: history.map((entry) => ({ cells: [instant(entry.at, now), entry.actor, entry.action] })),
    empty: 'Nothing was asked for on the dashboard or over HTTP.',
  })
