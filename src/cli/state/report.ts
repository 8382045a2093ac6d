import { kindOf } from '../../domain/state/inspect/troubles.ts'
import type { ShownTrouble } from '../../domain/state/migration/migration.ts'
import type { Verification } from '../../domain/state/migration/verify.ts'
import type { MigrationView } from '../../domain/state/migration/view.ts'
import { type ScanReport, summaryOf } from '../../domain/state/scan.ts'
import { bytesText, countText, durationText } from './terminal.ts'

const marks = { held: 'not moved', warning: 'moved as it is', note: 'harmless' } as const

/** A scan for people. */
export function scanLines(report: ScanReport, all: boolean): string[] {
  const { counts } = report
  const troubles = counts.held + counts.warning + counts.note
  const lines = [
    report.place,
    `  ${countText(report.devices, 'device')}, ${countText(report.states, 'state')}, ${countText(report.links, 'link')} of ${countText(report.users, 'user')}`,
    `  ${bytesText(report.bytes)}, the largest state ${bytesText(report.largestBytes)}; a copy may take ${durationText(report.estimateMs)}`,
    `  ${countText(troubles, 'trouble')}${troubles === 0 ? '' : `: ${counts.held} not moved, ${counts.warning} moved as they are, ${counts.note} harmless`}`,
  ]
  return [...lines, ...troubleLines(summaryOf(report, report.troubles.length).troubles, report.byCode, all)]
}

const fewExamples = 3

/** By kind, the grave ones first, each with what to do and some of where. */
export function troubleLines(
  troubles: ShownTrouble[],
  byCode: Record<string, number>,
  all: boolean,
): string[] {
  const order = { held: 0, warning: 1, note: 2 }
  const codes = Object.keys(byCode).toSorted(
    (a, b) => order[kindOf(a).severity] - order[kindOf(b).severity] || a.localeCompare(b),
  )
  return codes.flatMap((code) => {
    const kind = kindOf(code)
    const found = troubles.filter((trouble) => trouble.code === code)
    const shown = all ? found : found.slice(0, fewExamples)
    const more = (byCode[code] ?? 0) - shown.length
    return [
      '',
      `${code} (${byCode[code]}, ${marks[kind.severity]}): ${kind.about}`,
      `  what to do: ${kind.advice}`,
      ...shown.map((trouble) => `  ${exampleLine(trouble)}`),
      ...(more > 0 ? [`  … and ${more} more (--all shows them)`] : []),
    ]
  })
}

const exampleLine = ({ device, name, size, sha256 }: ShownTrouble): string =>
  [device || '-', name, `${size} B`, sha256 ? `sha256 ${sha256.slice(0, 16)}` : ''].join('  ').trimEnd()

/** A migration for people. */
export function statusLines(view: MigrationView): string[] {
  const { counts } = view
  const asked = view.wanted ? `, ${view.wanted} is asked for` : ''
  return [
    `${view.id}  ${view.phase}${view.paused ? ', paused' : ''}${asked}`,
    `  from ${view.from}`,
    `  to   ${view.to}`,
    `  moved and verified: ${counts.moved} of ${countText(counts.total - counts.removed, 'device')}, ${countText(counts.states, 'state')}, ${bytesText(counts.bytes)}, ${countText(counts.links, 'link')}`,
    ...workLines(view),
    ...gateLines(view),
    ...(view.note ? [`  note: ${view.note}`] : []),
    ...(view.error ? [`  stands still: ${view.error.message} [${view.error.code}]`] : []),
  ]
}

function* workLines({ counts, quarantine, rate, engines, etaMs }: MigrationView): Iterable<string> {
  if (counts.pending > 0) {
    const eta = etaMs === undefined ? '' : `, about ${durationText(etaMs)} to go`
    yield `  pending: ${counts.pending}; ${rate.statesPerSecond} states/s by ${engines} engines${eta}`
  }
  if (counts.failed > 0) yield `  failed: ${countText(counts.failed, 'device')}`
  if (quarantine.held > 0) {
    yield `  not moved: ${quarantine.held} of ${countText(quarantine.devices, 'device')} (--quarantine lists them)`
  }
}

function* gateLines({ counts, gate, phase, rollBack, stormGuard }: MigrationView): Iterable<string> {
  if (gate.closedMs !== undefined) yield `  the gate has been closed for ${durationText(gate.closedMs)}`
  if (gate.lastClosedMs !== undefined) yield `  the gate was closed for ${durationText(gate.lastClosedMs)}`
  if (rollBack) yield `  brought back: ${countText(rollBack.devices, 'device')}`
  if (phase === 'watching') yield `  devices that lack a state: ${stormGuard.missed} of ${counts.moved}`
  for (const line of stormGuard.choice ?? []) yield `  storm: ${line}`
  if (stormGuard.admittedParts !== undefined) {
    yield `  let in again: ${stormGuard.admittedParts}% of the phones`
  }
}

export function verificationLines(verification: Verification): string[] {
  const lines = [
    `${countText(verification.devices, 'device')} compared, ${countText(verification.equal, 'state')} equal on both sides`,
  ]
  if (verification.movedOn > 0)
    lines.push(`${countText(verification.movedOn, 'device')} wrote to the target since, as they should`)
  if (verification.differingDevices > 0)
    lines.push(`${countText(verification.differingDevices, 'device')} differ:`)
  for (const each of verification.differing) {
    lines.push(
      `  ${each.device}: ${each.missing.length} missing, ${each.added.length} too much, ${each.changed.length} other (${[...each.missing, ...each.added, ...each.changed].slice(0, 3).join(', ')})`,
    )
  }
  return lines
}
