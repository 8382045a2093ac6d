import type { Clock } from '../../core/clock.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import { STATE_URL_INVALID } from './errors.ts'
import type { MovableStore } from './store.ts'
import { createFileStore } from './stores/file.ts'
import { createPostgresStore } from './stores/postgres.ts'
import { createZPushSqlStore } from './stores/zpush-sql.ts'

export interface OpenStoreOptions {
  clock: Clock
  /** Makes a pool; the store closes it. */
  connect(url: string): Postgres
}

/**
 * Opens `file:/dir/`, `zpush+postgres://…` (Z-Push's three tables) or `postgres://…` (Baton's own).
 *
 * @throws STATE_URL_INVALID
 */
export function openStore(url: string, { clock, connect }: OpenStoreOptions): MovableStore {
  const place = maskUrl(url)
  const file = parseFileUrl(url)
  if (file !== undefined) return createFileStore({ root: file, clock })
  const match = /^(zpush\+)?(postgres(?:ql)?:\/\/.+)$/s.exec(url)
  if (!match) throw STATE_URL_INVALID({ url: place, reason: 'its kind is unknown' })
  const [, zpush, address = ''] = match
  if (!URL.canParse(address)) throw STATE_URL_INVALID({ url: place, reason: 'it is not a URL' })
  const database = connect(address)
  return zpush ? createZPushSqlStore({ database, place }) : createPostgresStore({ database, place })
}

/**
 * By hand, since a URL parser drops line breaks, which a path may have. `%XX` is read as in any URL, `%` before anything
 * else is itself.
 */
function parseFileUrl(url: string): string | undefined {
  const match = /^file:(?:\/\/(?=\/))?(\/.*)$/s.exec(url)
  if (!match) {
    if (url.startsWith('file:')) throw STATE_URL_INVALID({ url, reason: 'the path must begin with /' })
    return undefined
  }
  const path = (match[1] ?? '').replaceAll(/(?:%[0-9a-f]{2})+/gi, (escaped) => {
    try {
      return decodeURIComponent(escaped)
    } catch {
      return escaped
    }
  })
  return path.length > 1 ? path.replace(/\/+$/, '') || '/' : path
}

/** A URL without its password. */
export function maskUrl(url: string): string {
  return url.replace(/^([a-z+]+:\/\/[^/@:?#]*):[^/@?#]*@/i, '$1:***@')
}

/** Two spellings of one store are one store: a migration is found again by it. */
export function canonicalUrl(url: string): string {
  const file = parseFileUrl(url)
  return file === undefined ? url : `file:${file.replaceAll('%', '%25')}`
}
