import type { JobView } from '../../platform/queues/ledger.ts'
import { figure } from './figures.ts'
import { type Html, html } from './html.ts'

/**
 * A number is whatever the handler counts, so it is shown as it is. `{ done, total }` is shown as a bar; what else a
 * handler tells stands on the page of the job.
 */
export function progressOf({ progress, state }: Pick<JobView, 'progress' | 'state'>): Html {
  if (progress === undefined || progress === null) return html`<span class="help">–</span>`
  if (typeof progress === 'number') return figure(progress)
  const { done, total } = progress as { done?: unknown; total?: unknown }
  if (!isCount(done) || !isCount(total) || total === 0) return html`<span class="help">see the job</span>`
  const words = html`${figure(done)} of ${figure(total)}`
  if (state !== 'active') return words
  return html`<progress max="${total}" value="${Math.min(done, total)}" aria-label="progress"></progress> ${words}`
}

const isCount = (value: unknown): value is number =>
  typeof value === 'number' && Number.isFinite(value) && value >= 0
