import type { Clock } from '../../core/clock.ts'
import { toIso } from '../../core/clock.ts'
import { isId, newId } from '../../core/ids.ts'
import type { KeyStore, KeyView, Principal, Role } from '../access.ts'
import { keyHash } from '../access.ts'
import type { Client, Postgres } from '../postgres/postgres.ts'
import { insertAudit } from './audit-log.ts'
import { KEY_AMBIGUOUS, KEY_NOT_FOUND } from './errors.ts'
import { newKey, prefixOf } from './key-form.ts'

interface KeyRow {
  id: string
  name: string
  role: Role
  prefix: string
  created_at: Date
  revoked_at: Date | null
}

const columns = 'id, name, role, prefix, created_at, revoked_at'

export function createKeyStore(options: { postgres: Postgres; clock: Clock }): KeyStore {
  const { postgres, clock } = options
  return {
    create: ({ name, role, actor }) =>
      postgres.transaction(async (client) => {
        const key = newKey()
        const { rows } = await client.query<KeyRow>(
          `INSERT INTO api_keys (id, name, role, key_sha256, prefix) VALUES ($1, $2, $3, $4, $5)
           RETURNING ${columns}`,
          [newId(clock.now()), name, role, keyHash(key), prefixOf(key)],
        )
        const view = viewOf(rows[0] as KeyRow)
        await insertAudit(client, { actor, action: 'key.create', subject: view.id, details: { name, role } })
        return { ...view, key }
      }),
    list: async () => {
      const { rows } = await postgres.query<KeyRow>(`SELECT ${columns} FROM api_keys ORDER BY id`)
      return rows.map(viewOf)
    },
    revoke: (idOrPrefix, actor) => postgres.transaction((client) => revoke(client, idOrPrefix, actor)),
    find: async (hashes) => {
      const { rows } = await postgres.query<{ key_sha256: string; id: string; name: string; role: Role }>(
        {
          name: 'find-keys',
          text: `SELECT key_sha256, id, name, role FROM api_keys
                 WHERE key_sha256 = ANY($1) AND revoked_at IS NULL`,
        },
        [hashes],
      )
      return new Map<string, Principal>(
        rows.map((row) => [row.key_sha256, { owner: row.id, name: row.name, role: row.role }]),
      )
    },
    any: async () => {
      const { rows } = await postgres.query<{ present: boolean }>(
        'SELECT EXISTS (SELECT FROM api_keys WHERE revoked_at IS NULL) AS present',
      )
      return rows[0]?.present === true
    },
  }
}

async function revoke(client: Client, given: string, actor: string): Promise<KeyView> {
  // As a list shows it, or the whole key: whoever has found one in the open has nothing else.
  const idOrPrefix = given.replace(/…$/, '')
  const { rows: matches } = await client.query<{ id: string }>(
    isId(idOrPrefix)
      ? 'SELECT id FROM api_keys WHERE id = $1'
      : `SELECT id FROM api_keys WHERE starts_with(prefix, $1) AND revoked_at IS NULL OR key_sha256 = $2`,
    isId(idOrPrefix) ? [idOrPrefix] : [idOrPrefix, keyHash(idOrPrefix)],
  )
  const [match] = matches
  if (!match || idOrPrefix === '') throw KEY_NOT_FOUND({ key: isId(given) ? given : prefixOf(given) })
  if (matches.length > 1) throw KEY_AMBIGUOUS({ key: idOrPrefix, count: matches.length })
  const { rows } = await client.query<KeyRow>(
    `UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING ${columns}`,
    [match.id],
  )
  const view = viewOf(rows[0] as KeyRow)
  await insertAudit(client, { actor, action: 'key.revoke', subject: view.id, details: { name: view.name } })
  return view
}

const viewOf = (row: KeyRow): KeyView => ({
  id: row.id,
  name: row.name,
  role: row.role,
  prefix: row.prefix,
  createdAt: toIso(row.created_at.getTime()),
  ...(row.revoked_at ? { revokedAt: toIso(row.revoked_at.getTime()) } : {}),
})
