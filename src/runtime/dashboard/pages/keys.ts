import type { FastifyReply, FastifyRequest } from 'fastify'
import { isId } from '../../../core/ids.ts'
import { KEY_NOT_FOUND } from '../../../platform/access/errors.ts'
import { type KeyStore, type KeyView, type Role, roles } from '../../../platform/access.ts'
import { instant } from '../figures.ts'
import { fieldOf, formOf } from '../form.ts'
import { type Html, html } from '../html.ts'
import { link } from '../links.ts'
import { noticeOf } from '../notices.ts'
import { type DashboardPage, home, type Shell } from '../page.ts'
import { stateMark } from '../states.ts'
import { table } from '../table.ts'

const active = `${home}/keys`
const maxNameLength = 100

/** `/keys`: API keys, for operators. */
export function createKeysPage(options: { keys: KeyStore; environmentKeys: boolean }): DashboardPage {
  const { keys } = options
  return {
    nav: { href: active, label: 'API keys', operatorOnly: true },
    register: (server, shell) => {
      const show = async (request: FastifyRequest, reply: FastifyReply, above: Html, status = 200) =>
        shell.send(request, reply, {
          title: 'API keys',
          active,
          status,
          content: html`${above}${newKeyForm(shell.token(request))}${keyTable(await keys.list(), shell, request)}
${options.environmentKeys && html`<p class="help">Keys of <code>BATON_API_KEYS</code> are good as well; they are not listed here, and end with the setting.</p>`}`,
        })

      server.get('/keys', (request, reply) => {
        shell.assertOperator(request)
        return show(request, reply, noticeOf(request))
      })

      server.post('/keys', async (request, reply) => {
        const name = fieldOf(formOf(request), 'name')
        const role = roleOf(fieldOf(formOf(request), 'role'))
        if (name === undefined || name.length > maxNameLength || role === undefined)
          return show(request, reply, incomplete, 400)
        const made = await keys.create({ name, role, actor: shell.visitor(request).principal.name })
        // Not a redirect: the key is nowhere but in this answer.
        return show(request, reply, newKeyOf(made), 201)
      })

      server.post<{ Params: { id: string } }>('/keys/:id/revoke', async (request, reply) => {
        const { id } = request.params
        if (!isId(id)) throw KEY_NOT_FOUND({ key: id.slice(0, 60) })
        await keys.revoke(id, shell.visitor(request).principal.name)
        return reply.redirect(link('/keys', { notice: 'revoked' }), 303)
      })
    },
  }
}

const roleOf = (text: string | undefined): Role | undefined => roles.find((role) => role === text)

const incomplete = html`<p class="notice notice-bad" role="alert">A key needs a name of at most ${maxNameLength} characters, and a role. None was made.</p>`

const newKeyOf = ({ name, role, key }: KeyView & { key: string }): Html =>
  html`<section class="notice notice-good" role="status"><h2>The key ${name} (${role})</h2>
<p><code class="secret">${key}</code></p>
<p>It is shown this once. Copy it now; Baton keeps only its hash.</p></section>`

const newKeyForm = (
  token: Html,
): Html => html`<form class="filter" method="post" action="${link('/keys')}">${token}
  <div><label for="key-name">Name</label><input id="key-name" name="name" required maxlength="${maxNameLength}" autocomplete="off"></div>
  <div><label for="key-role">Role</label><select id="key-role" name="role">
    <option value="viewer">viewer: looks</option><option value="producer">producer: sends work</option><option value="operator">operator: does everything</option></select></div>
  <button>Make a key</button>
</form>`

function keyTable(list: KeyView[], shell: Shell, request: FastifyRequest): Html {
  const own = shell.visitor(request).principal.owner
  return table({
    caption: 'Keys',
    columns: [
      { label: 'Name' },
      { label: 'State' },
      { label: 'Role' },
      { label: 'Begins with' },
      { label: 'Made' },
      { label: 'Revoke', quiet: true },
    ],
    rows: list.map((key) => ({
      cells: [
        html`${key.name}${key.id === own && html` <span class="help">(yours)</span>`}`,
        stateMark(key.revokedAt === undefined ? 'valid' : 'revoked'),
        key.role,
        html`<code>${key.prefix}…</code>`,
        instant(key.createdAt, shell.now()),
        key.revokedAt === undefined
          ? revokeForm(key, shell.token(request), key.id === own)
          : html`<span class="help">revoked ${instant(key.revokedAt, shell.now())}</span>`,
      ],
    })),
    empty: 'There is no key in the database.',
  })
}

const revokeForm = (key: KeyView, token: Html, own: boolean): Html =>
  html`<details class="confirm"><summary>Revoke…</summary><form method="post" action="${link(`/keys/${key.id}/revoke`)}">${token}
  ${own && html`<p>This is your own key: you will be logged out.</p>`}
  <button class="danger">Revoke ${key.name}</button></form></details>`
