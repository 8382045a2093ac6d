import { createInterface } from 'node:readline/promises'
import type { Cli } from '../cli.ts'

/** Shows how far something is: a line that moves on a terminal, plain lines now and then elsewhere. */
export interface ProgressLine {
  show(done: number, total: number | undefined, text: string): void
  /** Ends the line, so that others may follow. */
  end(): void
}

const plainEveryMs = 5_000
const barWidth = 30

export function createProgressLine(cli: Cli): ProgressLine {
  const { stderr } = process
  const terminal = stderr.isTTY
  // Elsewhere what is over soon shows nothing.
  let shownAt = terminal ? Number.NEGATIVE_INFINITY : performance.now()
  let open = false
  return {
    show: (done, total, text) => {
      const now = performance.now()
      if (now - shownAt < (terminal ? 100 : plainEveryMs)) return
      shownAt = now
      const line = `${bar(done, total, terminal)} ${text}`
      if (!terminal) return cli.complain(line)
      open = true
      stderr.write(`\r${line.slice(0, (stderr.columns || 100) - 1)}\u001b[K`)
    },
    end: () => {
      if (open) stderr.write('\n')
      open = false
      shownAt = terminal ? Number.NEGATIVE_INFINITY : performance.now()
    },
  }
}

function bar(done: number, total: number | undefined, terminal: boolean): string {
  if (total === undefined || total === 0) return ''
  const part = Math.min(1, done / total)
  const percent = `${Math.floor(100 * part)}%`.padStart(4)
  if (!terminal) return percent
  const full = Math.round(barWidth * part)
  return `[${'#'.repeat(full)}${'.'.repeat(barWidth - full)}]${percent}`
}

/**
 * Asks whether to go on.
 *
 * @returns false when the answer is no, or when nobody can be asked and `yes` is not given: then it says so
 */
export async function confirm(cli: Cli, yes: boolean | undefined, question: string): Promise<boolean> {
  if (yes) return true
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    cli.complain('baton: nothing was done. Here nobody can be asked: add --yes if that is what you want.')
    cli.exitCode = 2
    return false
  }
  const reader = createInterface({ input: process.stdin, output: process.stderr })
  try {
    const answer = await reader.question(`${question} [y/N] `)
    if (/^y(?:es)?$/i.test(answer.trim())) return true
    cli.complain('Nothing was done.')
    cli.exitCode = 1
    return false
  } finally {
    reader.close()
  }
}

export function bytesText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let value = bytes
  let unit = 0
  while (value >= 1_000 && unit < units.length - 1) {
    value /= 1_000
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit] ?? ''}`
}

export function durationText(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`
  if (ms < 90_000) return `${(ms / 1_000).toFixed(1)} s`
  const minutes = Math.round(ms / 60_000)
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

export const countText = (count: number, noun: string): string =>
  `${count.toLocaleString('en-US')} ${noun}${count === 1 ? '' : 's'}`
