import { type Html, html } from './html.ts'
import { home } from './page.ts'

/** A link within the dashboard. Fields without a value are left out. */
export function link(path: string, fields: Record<string, string | undefined> = {}): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(fields)) if (value !== undefined) query.set(name, value)
  const text = query.toString()
  return home + path + (text === '' ? '' : `?${text}`)
}

export const jobLink = (id: string): Html =>
  html`<a class="id" href="${link(`/jobs/${encodeURIComponent(id)}`)}" title="${id}">${id.slice(0, 8)}…${id.slice(-6)}</a>`
