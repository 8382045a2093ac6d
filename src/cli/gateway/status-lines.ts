import type { GatewayStatus, TargetView } from '../../runtime/gateway/status.ts'

/** The status of a gateway as lines of a table. */
export function statusLines(status: GatewayStatus): string[] {
  const rows = status.targets.map(cellsOf)
  const all = [titles, ...rows]
  const widths = titles.map((_title, column) => Math.max(...all.map((cells) => (cells[column] ?? '').length)))
  const lineOf = (cells: string[]): string =>
    cells
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd()
  return [`gateway  ${status.url || 'not yet serving'}  pid ${status.pid}`, ...all.map(lineOf)]
}

const titles = ['REVISION', 'STATE', 'PID', 'PORT', 'AGE', 'SESSIONS', 'STREAMS', 'REQUESTS', 'RSS', 'KEPT']

const cellsOf = (target: TargetView): string[] => [
  target.revision,
  target.state,
  String(target.pid ?? '–'),
  String(target.port ?? '–'),
  durationOf(target.ageMs),
  String(target.sessions),
  String(target.streams),
  String(target.inFlight),
  target.rssBytes === null ? '–' : `${Math.round(target.rssBytes / 1_048_576)} MiB`,
  target.kept,
]

function durationOf(ms: number): string {
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 1) return `${Math.floor(ms / 1_000)} s`
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}
