import type { MigrationView } from '../../domain/state/migration/view.ts'
import type { ScanReport } from '../../domain/state/scan.ts'
import { bytesText, countText, durationText } from './terminal.ts'

// What will be done, printed before anything is changed.

export interface CopyPlan {
  from: string
  to: string
  report: ScanReport | undefined
  rate: { statesPerSecond?: number; bytesPerSecond?: number }
  cutOver: boolean
}

export function copyPlan({ from, to, report, rate, cutOver }: CopyPlan): string[] {
  const lines = ['Plan', `  copy from  ${from}`, `  to         ${to}`]
  if (report) {
    const { counts } = report
    const atRate = rate.statesPerSecond ? (1_000 * report.states) / rate.statesPerSecond : 0
    lines.push(
      `  what       ${countText(report.devices, 'device')}, ${countText(report.states, 'state')}, ${bytesText(report.bytes)}, ${countText(report.links, 'link')}; about ${durationText(Math.max(report.estimateMs, atRate))}`,
      `  not moved  ${counts.held} (listed by \`baton state scan\`); ${counts.warning} are moved with a remark`,
    )
  }
  return [
    ...lines,
    '  source     stays as it is and in use; only read',
    '  target     is marked as this migration’s and stays closed until the cut-over',
    cutOver
      ? '  cut-over   follows at once: phones get 503 for some seconds, then the target serves'
      : '  cut-over   is a step of its own: baton state cut-over ID',
  ]
}

export function cutOverPlan(view: MigrationView): string[] {
  return [
    'Plan',
    `  close      ${view.from}: phones get 503 with Retry-After and lose nothing`,
    '  wait       until nobody writes there any more. Reload the web server now if phones hold long heartbeats',
    `  copy       what changed since the last round, and verify it; ${view.counts.moved} devices are moved and verified`,
    `  open       ${view.to}`,
    `  not moved  ${view.quarantine.held} states or files of ${view.quarantine.devices} devices, and ${view.counts.failed} failed devices`,
    '  then       point Z-Push at the target (config.php) and reload it; the source stays closed',
    '  way back   baton state roll-back ID, at any time, with all that was written since',
  ]
}

export function rollBackPlan(view: MigrationView): string[] {
  return [
    'Plan',
    `  close      ${view.to}`,
    `  copy back  every device that wrote there since the cut-over, verified, to ${view.from}`,
    '  open       the source. What was held back at the start lies there untouched',
    '  then       point Z-Push at the source again and reload it',
  ]
}

export function resetPlan(view: MigrationView): string[] {
  return [
    'Plan',
    `  remove     all ${view.counts.total} devices of this migration and their links from ${view.to}`,
    `  source     ${view.from} is not touched`,
    `  forget     the migration ${view.id}, its verification and its quarantine list`,
  ]
}
