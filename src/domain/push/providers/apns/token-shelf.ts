import { createCipheriv, createDecipheriv, hkdfSync, type KeyObject, randomBytes } from 'node:crypto'
import type { Clock } from '../../../../core/clock.ts'
import type { Postgres } from '../../../../platform/postgres/postgres.ts'

export interface ShelvedToken {
  text: string
  /** By the shelf's clock, epoch ms. */
  madeAt: number
}

/** Where processes share the token that one of them signed. It has a clock, so that theirs need not be right. */
export interface TokenShelf {
  /** The token of that name, if there is one. `now`: what the shelf's clock shows, epoch ms. */
  get(name: string): Promise<{ now: number; token: ShelvedToken | undefined }>
  /** Keeps it, unless one is there that was made less than `minAgeMs` before, and not in the future. @returns the one that stays */
  put(name: string, token: ShelvedToken, minAgeMs: number): Promise<ShelvedToken>
}

/** A clock that is set back may differ by this much from what it said before, ms. */
const tolerableMs = 60_000

/** Whether the shelf's clock was wrong when the token was made: nobody would take it yet. */
export const isFuture = (token: ShelvedToken, now: number): boolean => token.madeAt > now + tolerableMs

/** For one process alone. */
export function createMemoryShelf(clock: Clock): TokenShelf {
  const tokens = new Map<string, ShelvedToken>()
  return {
    get: async (name) => ({ now: clock.now(), token: tokens.get(name) }),
    put: async (name, token, minAgeMs) => {
      const known = tokens.get(name)
      const young = known && token.madeAt - known.madeAt < minAgeMs
      if (young && !isFuture(known, token.madeAt)) return known
      tokens.set(name, token)
      return token
    },
  }
}

export interface PostgresShelfOptions {
  postgres: Postgres
  /** The signing key. What is kept is sealed with a key made from it: who reads the table cannot send. */
  key: KeyObject
}

/** For all processes. Its clock is that of Postgres. */
export function createPostgresShelf({ postgres, key }: PostgresShelfOptions): TokenShelf {
  const seal = createSeal(key)
  const opened = (row: TokenRow): ShelvedToken | undefined => {
    const text = seal.open(row.sealed)
    return text === undefined ? undefined : { text, madeAt: Number(row.made_ms) }
  }
  const get: TokenShelf['get'] = async (name) => {
    const { rows } = await postgres.query<TokenRow & { now_ms: number }>(
      `SELECT t.sealed, extract(epoch FROM t.made_at)::float8 * 1000 AS made_ms,
           extract(epoch FROM now())::float8 * 1000 AS now_ms
         FROM (SELECT) one LEFT JOIN provider_tokens t ON t.name = $1`,
      [name],
    )
    const [row] = rows
    const token = row?.sealed ? opened(row) : undefined
    // What nobody can read would stand in the way of what everybody could.
    if (row?.sealed && !token) {
      await postgres.query('DELETE FROM provider_tokens WHERE name = $1 AND sealed = $2', [name, row.sealed])
    }
    return { now: Math.floor(row?.now_ms ?? 0), token }
  }
  return {
    get,
    put: async (name, token, minAgeMs) => {
      const { rowCount } = await postgres.query(
        `INSERT INTO provider_tokens AS t (name, sealed, made_at) VALUES ($1, $2, to_timestamp($3 / 1000.0))
         ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, made_at = excluded.made_at
           WHERE t.made_at <= excluded.made_at - $4 * interval '1 ms'
              OR t.made_at > excluded.made_at + ${tolerableMs} * interval '1 ms'`,
        [name, seal.close(token.text), token.madeAt, minAgeMs],
      )
      if (rowCount === 1) return token
      // A statement of its own: the one above does not see what another put there while it waited.
      return (await get(name)).token ?? token
    },
  }
}

interface TokenRow extends Record<string, unknown> {
  sealed: string
  made_ms: number
}

/** AES-256-GCM: nonce, tag and text, in base64url. */
function createSeal(key: KeyObject) {
  const secret = Buffer.from(
    hkdfSync('sha256', key.export({ format: 'der', type: 'pkcs8' }), '', 'baton provider token', 32),
  )
  return {
    close: (text: string): string => {
      const nonce = randomBytes(12)
      const cipher = createCipheriv('aes-256-gcm', secret, nonce)
      const body = Buffer.concat([cipher.update(text), cipher.final()])
      return Buffer.concat([nonce, cipher.getAuthTag(), body]).toString('base64url')
    },
    /** Undefined for what was not sealed with this key. */
    open: (sealed: string): string | undefined => {
      const bytes = Buffer.from(sealed, 'base64url')
      try {
        const decipher = createDecipheriv('aes-256-gcm', secret, bytes.subarray(0, 12))
        decipher.setAuthTag(bytes.subarray(12, 28))
        return Buffer.concat([decipher.update(bytes.subarray(28)), decipher.final()]).toString()
      } catch {
        return undefined
      }
    },
  }
}
