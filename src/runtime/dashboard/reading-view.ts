import { instant } from './figures.ts'
import { type Hole, html } from './html.ts'
import type { Reading } from './reading.ts'

/** Figures with the time at which they were read; or words, so that nobody takes silence for nothing to do. */
export function whenRead<T>(reading: Reading<T>, now: number, render: (value: T) => Hole): Hole {
  if (reading.ok) return render(reading.value)
  return html`<p class="notice notice-bad" role="alert">Not known: this could not be read
    (<code>${reading.code}</code>, tried ${instant(reading.readAt, now)}). It is tried again by itself.</p>`
}
