import { type Html, html } from './html.ts'
import { home } from './page.ts'

/** A link within the dashboard. Fields without a value are left out. */
export function link(path: string, fields: Record<string, string | undefined> = {}): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(fields)) if (value !== undefined) query.set(name, value)
  const text = query.toString()
  return home + path + (text === '' ? '' : `?${text}`)
}

/** Ids are words of the application: any characters but controls. */
export const deviceLink = (device: string): Html =>
  html`<a class="id" href="${link(`/devices/${encodeURIComponent(device)}`)}">${device}</a>`

export const pushLink = (id: string, device?: string): Html =>
  html`<a class="id" href="${link(`/pushes/${id}`, { device })}" title="${id}">${id.slice(0, 8)}…${id.slice(-6)}</a>`

export const migrationLink = (id: string): Html =>
  html`<a class="id" href="${link(`/states/${id}`)}" title="${id}">${id.slice(0, 8)}…${id.slice(-6)}</a>`

export const jobLink = (id: string): Html =>
  html`<a class="id" href="${link(`/jobs/${encodeURIComponent(id)}`)}" title="${id}">${id.slice(0, 8)}…${id.slice(-6)}</a>`
