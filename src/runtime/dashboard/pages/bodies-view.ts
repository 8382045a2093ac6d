import type { AskedStore, BodiesLook, RepairLook } from '../../../domain/bodies/upkeep/look.ts'
import type { LatestRuns } from '../../../platform/queues/latest-runs.ts'
import type { JobView } from '../../../platform/queues/ledger.ts'
import { duration, figure, instant, lowerBound, size } from '../figures.ts'
import { type Hole, type Html, html } from '../html.ts'
import { jobLink, link } from '../links.ts'
import type { Reading } from '../reading.ts'
import { whenRead } from '../reading-view.ts'
import { stateMark } from '../states.ts'
import { facts, table } from '../table.ts'

export interface BodiesScene {
  bodies: BodiesLook
  stores: AskedStore[]
  runs: Reading<LatestRuns[]>
  notice: Html
  /** Operators see why a store cannot be used, which may name hosts. */
  isOperator: boolean
  token: Html
  now: number
}

export function renderBodies(scene: BodiesScene): Html {
  const { bodies, runs, isOperator, now } = scene
  return html`${scene.notice}
<div data-live="bodies">${countsOf(bodies)}</div>
<div data-live="stores">${storesOf(scene)}</div>
<div data-live="repairs">${repairsOf(scene)}</div>
${isOperator && actOf(scene, { word: 'repair', label: 'Repair now', plan: 'Looks after those that are due: each copy is read, bad ones are taken into quarantine, missing ones are written from a sound one. One that failed is due again after a growing pause.' })}
<div data-live="scrub">${scrubOf(scene)}</div>
${isOperator && actOf(scene, { word: 'scrub', label: 'Scrub now', plan: 'Reads every copy of the next portion, as each hour: at most 20 MiB a second.' })}
<div data-live="upkeep">${whenRead(runs, now, (value) => upkeepOf(value, now))}</div>`
}

export function overviewOfBodies({ lost, waiting, exact, oldestMs }: RepairLook): Html {
  const wait = html`${lowerBound(waiting, exact)} wait for a repair, the oldest for ${duration(oldestMs)}`
  if (lost > 0) return html`${stateMark('lost')} ${lowerBound(lost, exact)} without a sound copy; ${wait}`
  return waiting > 0
    ? html`${stateMark('lacking')} ${wait}`
    : html`${stateMark('ok')} none waits for a repair`
}

function countsOf({ counts, repairs }: BodiesLook): Html {
  const tile = (label: Hole, value: Hole, unit: Hole = ''): Html =>
    html`<div class="tile"><span class="tile-label">${label}</span><span class="tile-figure">${value}</span><span class="tile-unit">${unit}</span></div>`
  const { exact } = counts
  return html`<div class="tiles">
  ${tile('Bodies', figure(counts.bodies, exact), html`${!exact && '≈ '}${size(counts.bytes)}`)}
  ${tile(counts.lacking > 0 ? stateMark('lacking') : 'Lacking a copy', figure(counts.lacking, exact), 'fewer than two recorded')}
  ${tile(repairs.lost > 0 ? stateMark('lost') : 'Lost', lowerBound(repairs.lost, repairs.exact), 'without a sound copy')}
  ${tile('Condemned', figure(counts.condemned, exact), 'nothing refers to them')}
</div>
${!exact && html`<p class="help">≈ marks figures drawn from a sample: there are more rows than are counted.</p>`}`
}

interface ShownStore extends Omit<AskedStore, 'state'> {
  state: AskedStore['state'] | 'not configured'
}

/** Those that are configured, and those where bodies lie all the same. */
function allStores({ bodies: { counts }, stores }: BodiesScene): ShownStore[] {
  const others = [...counts.copies.keys()].filter((name) => stores.every((store) => store.name !== name))
  return [...stores, ...others.map((name) => ({ name, state: 'not configured' as const, draining: false }))]
}

function storesOf(scene: BodiesScene): Html {
  const { bodies, isOperator } = scene
  return table({
    caption: 'Stores',
    columns: [
      { label: 'Store' },
      { label: 'State' },
      { label: 'Copies', figure: true },
      { label: 'What it means' },
    ],
    rows: allStores(scene).map((store) => ({
      bad: store.state !== 'ok',
      cells: [
        html`<span class="id">${store.name}</span>`,
        html`${stateMark(store.state)}${store.draining && html` ${stateMark('draining')}`}`,
        figure(bodies.counts.copies.get(store.name) ?? 0, bodies.counts.exact),
        html`${meanings[store.state]}${isOperator && store.reason !== undefined && html` <span class="error">${store.reason}</span>`}${
          store.draining && ' Takes no new bodies, and gives its own to the others.'
        }`,
      ],
    })),
    empty: 'No store is configured.',
  })
}

const meanings: Record<ShownStore['state'], string> = {
  ok: 'It answers, and is the place that it was.',
  away: 'It cannot be used now. Puts go to the others, and what lacks a copy is repaired once it is back.',
  resting: 'It failed a moment ago, and is given some seconds of rest before it is asked again.',
  silent: 'It has not answered within 1.5 s.',
  'not configured': 'Bodies lie there, and BODY_STORES does not name it.',
}

function repairsOf({ bodies: { repairs }, isOperator }: BodiesScene): Html {
  return html`${table({
    caption: 'Waiting for a repair',
    columns: [
      { label: 'Why' },
      { label: 'Bodies', figure: true },
      { label: 'Oldest', figure: true },
      { label: 'Most tries', figure: true },
      ...(isOperator ? [{ label: 'The last error' }] : []),
    ],
    rows: repairs.reasons.map((each) => ({
      cells: [
        each.reason,
        lowerBound(each.waiting, repairs.exact),
        duration(each.oldestMs),
        figure(each.tries),
        ...(isOperator ? [html`<span class="error">${each.error}</span>`] : []),
      ],
    })),
    empty: 'Every body has what it needs: none waits.',
  })}`
}

function scrubOf({ bodies: { scrub, counts }, now }: BodiesScene): Html {
  const share = Math.floor(1_000 * scrub.passShare) / 10
  return html`<h2>Scrub</h2>
${facts([
  [
    'This pass',
    html`<progress max="100" value="${share}" aria-label="bodies read in this pass"></progress> ${share} %, begun ${instant(scrub.passBeganAt, now)}`,
  ],
  ['Passes', figure(scrub.passes)],
  [
    'Read',
    html`${figure(scrub.checked)} bodies, the last ${scrub.ranAt === null ? 'never' : instant(scrub.ranAt, now)}`,
  ],
  ['Never read', figure(scrub.neverChecked, counts.exact)],
  [
    'Found',
    html`${figure(scrub.bad)} bad copies, ${figure(scrub.missing)} missing, ${figure(scrub.lost)} bodies lost`,
  ],
  [
    'Quarantine',
    html`each bad copy lies in the folder <code>quarantine</code> of its store, for people to look at`,
  ],
  ['Planted bad copy', canaryOf(scrub.canary)],
])}`
}

const canaryOf = (canary: BodiesLook['scrub']['canary']): Html =>
  ({
    none: html`none yet: the first scrub plants one`,
    planted: html`${stateMark('planted')} it is to be found within a day`,
    found: html`${stateMark('found')} the scrubber does its work`,
    overdue: html`${stateMark('overdue')} it was not found within a day: the scrubber does not do its work`,
  })[canary]

interface Act {
  word: 'scrub' | 'repair'
  label: string
  plan: string
}

const actOf = ({ token }: BodiesScene, { word, label, plan }: Act): Html =>
  html`<details class="confirm"><summary>${label}…</summary>
<form class="actions" method="post" action="${link(`/bodies/${word}`)}">${token}
  <p>${plan} A worker does it; one at a time.</p>
  <button>${label}</button></form></details>`

function upkeepOf(runs: LatestRuns[], now: number): Html {
  return html`${table({
    caption: 'Upkeep',
    columns: [
      { label: 'Job' },
      { label: 'Now' },
      { label: 'Last run' },
      { label: 'What it found' },
      { label: 'Next' },
    ],
    rows: runs.map(({ name, unfinished, finished, nextAt }) => ({
      bad: finished?.state === 'failed' || trippedOf(finished).length > 0,
      cells: [
        name,
        unfinished ? html`${jobLink(unfinished.id)} ${stateMark(unfinished.state)}` : html`–`,
        finished
          ? html`${jobLink(finished.id)} ${stateMark(finished.state)} ${instant(finished.finishedAt, now)}`
          : html`<span class="help">none among the latest jobs</span>`,
        foundBy(finished ?? unfinished),
        instant(nextAt, now),
      ],
    })),
    empty: 'No job looks after bodies.',
  })}`
}

/** Counts of a result or of a progress, and in words what a sweep did not dare to do. */
function foundBy(job: JobView | undefined): Html {
  const outcome = job?.result ?? job?.progress
  if (typeof outcome !== 'object' || outcome === null) return html`–`
  const counts = Object.entries(outcome).filter(([, value]) => typeof value === 'number')
  return html`${counts.map(([name, value]) => `${name} ${value}`).join(', ')}${trippedOf(job).map(
    (reason) => html`<p class="error">${stateMark('not done')} ${reason}</p>`,
  )}`
}

function trippedOf(job: JobView | undefined): string[] {
  const result = job?.result
  if (typeof result !== 'object' || result === null) return []
  const lists = ['tripped', 'failed'].map((name) => (result as Record<string, unknown>)[name])
  return lists.flatMap((list) => (Array.isArray(list) ? list.filter((each) => typeof each === 'string') : []))
}
