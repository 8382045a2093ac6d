import { sha256 } from '../core/digest.ts'
import { ROLE_MISSING } from './access/errors.ts'

/** What a key may do: `producer` takes work in and reads what it asks for by id, `viewer` reads, `operator` all. */
export type Role = 'producer' | 'operator' | 'viewer'

export const roles: readonly Role[] = ['producer', 'operator', 'viewer']

/** Whoever is behind a request. */
export interface Principal {
  /** The same for every request with the same key, and for no other key. */
  owner: string
  /** For people: the name that the key was given. */
  name: string
  role: Role
}

/** Tells who is behind a key. */
export interface Authenticator {
  /**
   * The principal, or undefined for a key that is unknown or revoked. Answers at once for a key that was seen
   * within the last seconds, else after one look at the database that all concurrent callers share.
   * @throws DATABASE_UNAVAILABLE, DATABASE_OVERLOADED: nobody can say now, which is not the same as "no"
   */
  authenticate(key: string): Principal | undefined | Promise<Principal | undefined>
  /** The same for the hash of a key, for a session that began with the key and does not keep it. */
  authenticateHash(keySha256: string): Principal | undefined | Promise<Principal | undefined>
}

/** The API keys in the database. Only their hashes are kept. */
export interface KeyStore {
  /** The key itself is in the answer and nowhere else: it cannot be shown again. */
  create(key: NewKey): Promise<KeyView & { key: string }>
  list(): Promise<KeyView[]>
  /**
   * Takes effect on every node within 5 s. Revoking a revoked key changes nothing.
   * @param idOrPrefix the id, the first characters of the key as `list` shows them, or the whole key
   * @throws KEY_NOT_FOUND, KEY_AMBIGUOUS
   */
  revoke(idOrPrefix: string, actor: string): Promise<KeyView>
  /** The principals of those hashes that belong to a key that is not revoked. */
  find(hashes: string[]): Promise<Map<string, Principal>>
  /** Whether any key could be used at all. */
  any(): Promise<boolean>
}

export interface NewKey {
  name: string
  role: Role
  /** Who makes it, for the audit log. */
  actor: string
}

export interface KeyView {
  id: string
  name: string
  role: Role
  /** The first characters, by which people tell keys apart. */
  prefix: string
  createdAt: string
  revokedAt?: string
}

/** Who did what to what. */
export interface AuditEntry {
  actor: string
  /** For example `job.cancel`. */
  action: string
  subject: string
  details?: Record<string, unknown>
}

/** An entry as it stands in the log. */
export type AuditRecord = AuditEntry & { id: string; at: string }

export interface AuditLog {
  record(entry: AuditEntry): Promise<void>
  /** The newest first; `before` is the id of the last entry of the page before. */
  list(options: { limit: number; before?: string; subject?: string }): Promise<AuditRecord[]>
}

export const keyHash = (key: string): string => sha256(key)

/** @throws ROLE_MISSING naming the roles that would do */
export function assertRole(principal: Principal, needed: readonly Role[]): void {
  if (principal.role === 'operator' || needed.includes(principal.role)) return
  const named = needed.includes('operator') ? needed : [...needed, 'operator']
  throw ROLE_MISSING({ role: principal.role, needed: named.join(' or ') })
}
