import type { FailOverDocument, FailOverViewDocument } from '../../../domain/sync/fail-over/document.ts'
import type { FuseView, ReplicaView, SyncView } from '../../../domain/sync/sync-view.ts'
import { duration, figure, instant } from '../figures.ts'
import { type Hole, type Html, html } from '../html.ts'
import { link } from '../links.ts'
import { stateMark } from '../states.ts'
import { facts, table } from '../table.ts'

export interface ReplicasScene {
  sync: SyncView
  failOvers: FailOverViewDocument
  notice: Html
  isOperator: boolean
  token: Html
  now: number
}

export function renderReplicas(scene: ReplicasScene): Html {
  const { sync, failOvers, notice, isOperator } = scene
  const running = failOvers.failOver?.finishedAt === null ? failOvers.failOver : null
  return html`${notice}
<div data-live="site">${siteOf(sync)}</div>
<div data-live="running">${running && runningOf(running, scene)}</div>
${isOperator && running && abortOf(scene)}
<div data-live="replicas">${replicasOf(sync, scene)}</div>
${isOperator && !running && actsOf(scene)}
<div data-live="plans">${sync.replicas.map((replica) => plansOf(replica, scene))}</div>
${isOperator && sync.replicas.map((replica) => approvalsOf(replica, scene))}
<div data-live="history">${historyOf(failOvers.history, scene.now)}</div>`
}

/** For the overview. */
export function overviewOfSync({ site, replicas }: SyncView): Html {
  if (site.role === 'alone') return html`${stateMark('ok')} this site has no replica`
  if (site.role === 'replica') return html`${stateMark('standby')} a replica of ${site.leader}`
  const lag = Math.max(0, ...replicas.map((each) => each.lag.seconds))
  const troubles = replicas.filter(hasTrouble)
  const mark = troubles.length > 0 ? stateMark('lacking') : stateMark('ok')
  return html`${mark} leads; ${replicas.length} replicas, ${duration(lag * 1_000)} behind at most${troubles.length > 0 && html`; ${troubles.map(({ name }) => name).join(', ')} need a look`}`
}

const hasTrouble = ({ error, paused, quarantine, fuses }: ReplicaView): boolean =>
  error !== null || paused || quarantine.failed + quarantine.mismatch > 0 || fuses.length > 0

function siteOf({ site }: SyncView): Html {
  const { name, role, intake, epoch, leader, pending, seeding } = site
  return html`<h2>This site</h2>
${facts([
  ['Name', name],
  ['Role', html`${role}${leader !== null && html` of ${leader}`}`],
  ['Writes', html`${stateMark(intake)} ${intake === 'open' ? 'are taken' : 'are refused with 503'}`],
  ['Epoch', figure(epoch)],
  [
    'Not numbered yet',
    html`${figure(pending.changes)} changes, the oldest ${duration(pending.seconds * 1_000)} old`,
  ],
  ...(seeding.done ? [] : [['First copy', seedingOf(site)] as [string, Hole]]),
])}`
}

const seedingOf = ({ seeding }: SyncView['site']): Html =>
  html`${stateMark('copying')} ${
    seeding.types
      .filter((each) => !each.done)
      .map(({ type }) => type)
      .join(', ') || 'it begins'
  }`

function replicasOf({ replicas, site }: SyncView, { now }: ReplicasScene): Html {
  return table({
    caption: site.role === 'replica' ? 'Sites that would follow this one' : 'Replicas',
    columns: [
      { label: 'Replica' },
      { label: 'State' },
      { label: 'Behind', figure: true },
      { label: 'Changes', figure: true },
      { label: 'Quarantine' },
      { label: 'Verified' },
    ],
    rows: replicas.map((replica) => ({
      bad: hasTrouble(replica),
      cells: [
        html`${replica.name} <span class="help">${replica.url}</span>`,
        stateOf(replica, site),
        duration(replica.lag.seconds * 1_000),
        figure(replica.lag.changes),
        quarantineOf(replica),
        verifiedOf(replica, now),
      ],
    })),
    empty: 'None yet: PUT /v1/replicas/NAME registers one.',
  })
}

function stateOf({ error, paused }: ReplicaView, { role }: SyncView['site']): Html {
  if (role === 'replica') return html`${stateMark('standby')} noted for after a fail-over`
  if (paused) return stateMark('paused')
  return error === null
    ? stateMark('ok')
    : html`${stateMark('away')} <span class="error">${error.message}</span>`
}

function quarantineOf({ quarantine: { failed, mismatch, held } }: ReplicaView): Hole {
  const parts = [
    failed > 0 && `${failed} failed`,
    mismatch > 0 && `${mismatch} changed there`,
    held > 0 && `${held} deletes held`,
  ].filter((part) => part !== false)
  return parts.length === 0 ? 'empty' : parts.join(', ')
}

function verifiedOf({ verifiedAt, verified, verifyWantedAt }: ReplicaView, now: number): Html {
  const asked = verifyWantedAt !== null && html` <span class="help">asked for</span>`
  if (verifiedAt === null || !verified) return html`never${asked}`
  return html`${instant(verifiedAt, now)}: ${figure(verified.objects)} objects, ${figure(verified.differing)} differed${asked}`
}

function runningOf(failOver: FailOverDocument, { now }: ReplicasScene): Html {
  return html`<section class="notice"><h2>${titleOf(failOver)} ${stateMark(failOver.phase)}</h2>
<p>Begun ${instant(failOver.createdAt, now)} by ${failOver.actor}.</p>
<p>${failOver.log.map(({ phase, ms }) => html`${phase} ${ms !== undefined && duration(ms)} · `)}</p>
${failOver.refusedMs !== undefined && html`<p>Writes are refused for ${duration(failOver.refusedMs)} now.</p>`}
${failOver.error && html`<p class="error"><code>${failOver.error.code}</code> ${failOver.error.message}</p>`}</section>`
}

const titleOf = ({ mode, to }: FailOverDocument): string =>
  mode === 'rehearse' ? `Rehearsal of a fail-over to ${to}` : `Fail-over to ${to} (${mode})`

const abortOf = ({ token }: ReplicasScene): Html =>
  html`<details class="confirm"><summary>Abort…</summary>
<form class="actions" method="post" action="${link('/replicas/abort')}">${token}
  <p>This site takes writes again. Possible until the other site was asked to open.</p>
  <button>Abort</button></form></details>`

function actsOf(scene: ReplicasScene): Hole {
  const { site, replicas } = scene.sync
  if (site.role === 'replica') return hardOf(scene)
  if (site.role !== 'leader') return ''
  return replicas.map(
    ({
      name,
    }) => html`${beginOf(scene, { mode: 'rehearse', to: name, label: `Rehearse a fail-over to ${name}`, plan: 'Refuses writes for some seconds, goes as far as the replica has everything, and opens again.' })}
${beginOf(scene, { mode: 'soft', to: name, label: `Fail over to ${name}`, plan: `This site closes, sends the rest, and ${name} opens. Nothing is lost; clients have to go there.` })}
${verifyOf(scene, name)}`,
  )
}

interface Beginning {
  mode: 'rehearse' | 'soft'
  to: string
  label: string
  plan: string
}

const beginOf = ({ token }: ReplicasScene, { mode, to, label, plan }: Beginning): Html =>
  html`<details class="confirm"><summary>${label}…</summary>
<form class="actions" method="post" action="${link('/replicas/fail-over')}">${token}
  <input type="hidden" name="mode" value="${mode}"><input type="hidden" name="to" value="${to}">
  <p>${plan}</p><button>${label}</button></form></details>`

const verifyOf = ({ token }: ReplicasScene, name: string): Html =>
  html`<details class="confirm"><summary>Verify ${name}…</summary>
<form class="actions" method="post" action="${link('/replicas/verify')}">${token}
  <input type="hidden" name="name" value="${name}">
  <p>Reads every object anew on both sides and compares.</p><button>Verify ${name}</button></form></details>`

const hardOf = ({ token, sync: { site } }: ReplicasScene): Html =>
  html`<details class="confirm"><summary>Take over by force…</summary>
<form class="actions" method="post" action="${link('/replicas/fail-over')}">${token}
  <input type="hidden" name="mode" value="hard"><input type="hidden" name="to" value="${site.name}">
  <p class="error">Only when ${site.leader} is gone, or must not come back as the leader. What it took in and had not sent here yet may be lost.</p>
  <label>Name of the leader that is given up <input name="confirm" autocomplete="off" required></label>
  <button>Take over</button></form></details>`

function plansOf({ name, fuses }: ReplicaView, { now }: ReplicasScene): Hole {
  if (fuses.length === 0) return ''
  return table({
    caption: `Deletes held back from ${name}`,
    columns: [
      { label: 'Plan' },
      { label: 'Why' },
      { label: 'Deletes', figure: true },
      { label: 'Since' },
      { label: 'Such as' },
    ],
    rows: fuses.map((fuse) => ({
      bad: fuse.approvedAt === null,
      cells: [
        html`<span class="id">${fuse.plan}</span>`,
        fuse.reason,
        figure(fuse.deletes),
        instant(fuse.at, now),
        html`<span class="id">${examplesOf(fuse)}</span>`,
      ],
    })),
    empty: '',
  })
}

const examplesOf = ({ examples }: FuseView): string =>
  examples.map(({ type, id }) => `${type} ${id}`).join(', ')

const approvalsOf = ({ name, fuses }: ReplicaView, { token }: ReplicasScene): Hole =>
  fuses
    .filter(({ approvedAt }) => approvedAt === null)
    .map(
      ({
        plan,
        deletes,
      }) => html`<details class="confirm"><summary>Let ${figure(deletes)} deletes go to ${name}…</summary>
<form class="actions" method="post" action="${link('/replicas/approve')}">${token}
  <input type="hidden" name="name" value="${name}"><input type="hidden" name="plan" value="${plan}">
  <p>The objects of plan <span class="id">${plan}</span> are deleted there; its trash keeps them for 7 days.</p>
  <button>Approve</button></form></details>`,
    )

function historyOf(history: FailOverDocument[], now: number): Html {
  return table({
    caption: 'Fail-overs, the newest first',
    columns: [
      { label: 'What' },
      { label: 'End' },
      { label: 'Begun' },
      { label: 'By' },
      { label: 'Writes refused', figure: true },
      { label: 'What came of it' },
    ],
    rows: history.map((each) => ({
      bad: each.phase === 'refused' || each.phase === 'aborted',
      cells: [
        titleOf(each),
        stateMark(each.phase),
        instant(each.createdAt, now),
        each.actor,
        each.refusedMs === undefined ? '–' : duration(each.refusedMs),
        outcomeOf(each),
      ],
    })),
    empty: 'None yet.',
  })
}

function outcomeOf({ error, report }: FailOverDocument): Hole {
  if (error) return html`<span class="error">${error.message}</span>`
  const counts = Object.entries(report ?? {}).filter(([, value]) => typeof value === 'number')
  return counts.length === 0 ? '–' : counts.map(([name, value]) => `${name} ${String(value)}`).join(', ')
}
