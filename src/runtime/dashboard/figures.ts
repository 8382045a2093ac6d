import { type Html, html } from './html.ts'

const grouped = new Intl.NumberFormat('en')

/** `12,345`; an estimate says that it is one. */
export function figure(value: number, exact = true): Html {
  const text = grouped.format(Math.round(value))
  return exact ? html`${text}` : html`<span title="an estimate">≈ ${text}</span>`
}

/** `≥ 12,345` when counting stopped there: also a zero is then no more than what was found so far. */
export function lowerBound(value: number, exact: boolean): Html {
  const text = grouped.format(Math.round(value))
  return exact ? html`${text}` : html`<span title="at least; counting stopped here">≥ ${text}</span>`
}

/** `0 s`, `850 ms`, `12 s`, `3 min`, `2 h 5 min`, `4 d 3 h`: two units at most. */
export function duration(ms: number): string {
  if (ms < 1_000) return ms < 1 ? '0 s' : `${Math.round(ms)} ms`
  const seconds = Math.floor(ms / 1_000)
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min${seconds % 60 === 0 || minutes >= 10 ? '' : ` ${seconds % 60} s`}`
  const hours = Math.floor(minutes / 60)
  if (hours < 24) return `${hours} h${minutes % 60 === 0 ? '' : ` ${minutes % 60} min`}`
  const days = Math.floor(hours / 24)
  return `${days} d${hours % 24 === 0 ? '' : ` ${hours % 24} h`}`
}

/** `512 B`, `3.4 KiB`, `20 MiB`. */
export function size(bytes: number): string {
  if (bytes < 1_024) return `${bytes} B`
  const units = ['KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes / 1_024
  let unit = 0
  while (value >= 1_024 && unit < units.length - 1) {
    value /= 1_024
    unit += 1
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`
}

/** An instant as people think of it, the exact one beside it. The script keeps it true while the page is open. */
export function instant(iso: string | undefined, now: number): Html {
  if (iso === undefined) return html`–`
  return html`<time datetime="${iso}" title="${iso}">${relative(Date.parse(iso) - now)}</time>`
}

function relative(ms: number): string {
  if (Math.abs(ms) < 1_000) return 'now'
  return ms < 0 ? `${duration(-ms)} ago` : `in ${duration(ms)}`
}
