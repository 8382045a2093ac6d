import { isId } from '../../../core/ids.ts'
import type { AuditLog, AuditRecord } from '../../../platform/access.ts'
import { instant } from '../figures.ts'
import { fieldOf, queryOf } from '../form.ts'
import { type Html, html } from '../html.ts'
import { jobLink, link, migrationLink, pushLink } from '../links.ts'
import { type DashboardPage, home } from '../page.ts'
import { table } from '../table.ts'

const perPage = 50

/** `/audit`: who did what to what. */
export function createAuditPage({ audit }: { audit: Pick<AuditLog, 'list'> }): DashboardPage {
  const active = `${home}/audit`
  return {
    nav: { href: active, label: 'Audit log' },
    register: (server, shell) => {
      server.get('/audit', async (request, reply) => {
        const before = fieldOf(queryOf(request), 'before')
        const isPlace = before !== undefined && /^\d{1,18}$/.test(before)
        const entries = await audit.list({ limit: perPage + 1, ...(isPlace ? { before } : {}) })
        const content = html`${auditTable(entries.slice(0, perPage), shell.now())}
<nav class="pages" aria-label="Pages of the log">
  ${isPlace && html`<a href="${link('/audit')}">First page</a>`}
  ${entries.length > perPage && html`<a href="${link('/audit', { before: entries[perPage - 1]?.id })}">Next page</a>`}
</nav>`
        return shell.send(request, reply, { title: 'Audit log', active, content })
      })
    },
  }
}

const auditTable = (entries: AuditRecord[], now: number): Html =>
  table({
    caption: 'Actions, the last first',
    columns: [
      { label: 'When' },
      { label: 'Who' },
      { label: 'What' },
      { label: 'To what' },
      { label: 'Details' },
    ],
    rows: entries.map((entry) => ({
      cells: [
        instant(entry.at, now),
        entry.actor,
        html`<code>${entry.action}</code>`,
        subjectOf(entry),
        html`<span class="help">${detailsOf(entry.details)}</span>`,
      ],
    })),
    empty: 'Nobody has done anything yet.',
  })

function subjectOf({ action, subject }: AuditRecord): Html {
  const linkTo = Object.entries(links).find(([kind]) => action.startsWith(kind))?.[1]
  return linkTo && isId(subject) ? linkTo(subject) : html`<span class="id">${subject}</span>`
}

/** By what an action begins with. */
const links: Record<string, (id: string) => Html> = {
  'job.': jobLink,
  'push.': pushLink,
  'migration.': migrationLink,
}

const maxDetail = 80

const detailsOf = (details: Record<string, unknown> = {}): string =>
  Object.entries(details)
    .map(([name, value]) =>
      `${name} ${typeof value === 'string' ? value : JSON.stringify(value)}`.slice(0, maxDetail),
    )
    .join(', ')
