import type { GateView } from '../../../domain/state/administration.ts'
import { isOver, type Migration } from '../../../domain/state/migration/migration.ts'
import type { MigrationView } from '../../../domain/state/migration/view.ts'
import { maskUrl } from '../../../domain/state/open-store.ts'
import { duration, figure, instant, size } from '../figures.ts'
import { type Hole, type Html, html } from '../html.ts'
import { migrationLink } from '../links.ts'
import { stateMark } from '../states.ts'
import { table } from '../table.ts'

export interface StatesScene {
  /** The newest first. */
  migrations: Migration[]
  /** Those that go on. */
  underWay: MigrationView[]
  gate: GateView
  now: number
}

export function renderStates({ migrations, underWay, gate, now }: StatesScene): Html {
  return html`<div data-live="gate">
<p>The gate of Baton's own store: ${gateOf(gate, now)}</p>
</div>
<div data-live="migrations">
${underWay.map((view) => cardOf(view))}
${table({
  caption: 'Migrations, the newest first',
  columns: [
    { label: 'Migration' },
    { label: 'Phase' },
    { label: 'From' },
    { label: 'To' },
    { label: 'Begun' },
    { label: 'Ended' },
  ],
  rows: migrations.map((each) => ({
    bad: each.storm !== undefined && each.phase === 'watching' && each.admitted === undefined,
    cells: [
      migrationLink(each.id),
      phaseOf(each),
      html`<span class="id">${maskUrl(each.sourceUrl)}</span>`,
      html`<span class="id">${maskUrl(each.targetUrl)}</span>`,
      instant(each.createdAt, now),
      instant(each.finishedAt, now),
    ],
  })),
  empty: 'There is no migration yet: baton state migrate --from URL --to URL begins one.',
})}
</div>`
}

const cardOf = (view: MigrationView): Html =>
  html`<section class="notice"><h2>${migrationLink(view.id)} ${phaseOf(view)}</h2>
<p>${progressOf(view)}</p>
${view.stormGuard.storm && html`<p class="error">A storm has closed the gate: its page shows the choice.</p>`}
${view.error && html`<p class="error"><code>${view.error.code}</code> ${view.error.message}</p>`}</section>`

/** As a word, with what was asked for and has not happened yet. */
export function phaseOf({
  phase,
  paused,
  wanted,
}: Pick<MigrationView, 'phase' | 'paused'> & { wanted?: string | undefined }): Html {
  const isPaused = paused && !isOver(phase)
  return html`${stateMark(phase)}${isPaused && html` ${stateMark('paused')}`}${
    wanted !== undefined && !isOver(phase) && html` <span class="help">asked for: ${wanted}</span>`
  }`
}

export function gateOf({ open, reason, admittedParts, changedAt, owner }: GateView, now: number): Html {
  if (open) return html`${stateMark('open')} <span class="help">since ${instant(changedAt, now)}</span>`
  const why =
    reason === 'storm' ? 'a storm: too many devices lack states' : (reason ?? 'states are being moved')
  return html`${stateMark('closed')} ${why}, since ${instant(changedAt, now)}; phones get 503 and come back.
${admittedParts > 0 && html`${figure(admittedParts)} % of them are let in.`}
${owner !== undefined && html`Its migration: ${migrationLink(owner)}`}`
}

/** A bar, and the same in words. */
export function progressOf({ counts, rate, etaMs, phase }: MigrationView): Html {
  const settled = counts.total - counts.pending
  if (counts.total === 0)
    return html`${phase === 'scanning' ? 'Looking; nothing is written.' : 'No device is known yet.'}`
  return html`<progress class="wide" max="${counts.total}" value="${settled}" aria-label="devices"></progress>
<strong>${percent(settled, counts.total)}</strong>: ${figure(settled)} of ${figure(counts.total)} devices,
${size(counts.bytes)}; ${figure(rate.devicesPerSecond)} devices and ${figure(rate.statesPerSecond)} states a second, ${size(rate.bytesPerSecond)}/s;
${leftOf(counts.pending, etaMs)}`
}

const leftOf = (pending: number, etaMs: number | undefined): Hole => {
  if (pending === 0) return 'nothing is pending'
  return etaMs === undefined
    ? html`${figure(pending)} pending, and nothing moves now`
    : `about ${duration(etaMs)} left`
}

/** Never 100 % before the last one. */
const percent = (part: number, all: number): string => `${Math.floor((100 * part) / all)} %`

export function overviewOfStates(underWay: MigrationView[], gate: GateView): Hole {
  const storm = underWay.find((view) => view.stormGuard.storm && view.stormGuard.admittedParts === undefined)
  const closed =
    !gate.open &&
    html`${stateMark('closed')} the gate of Baton's store${gate.reason === 'storm' && ': a storm'}. `
  if (storm) return html`${closed}${stateMark('storm')} ${migrationLink(storm.id)} waits for a decision`
  if (underWay.length === 0) return html`${closed || stateMark('open')} no migration is under way`
  return html`${closed}${underWay.map(
    (view) =>
      html`${phaseOf(view)} ${view.counts.total > 0 && percent(view.counts.total - view.counts.pending, view.counts.total)} `,
  )}`
}
