import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Clock } from '../../src/core/clock.ts'
import { createSystemClock } from '../../src/core/clock.ts'
import { createAuditLog } from '../../src/platform/access/audit-log.ts'
import { createAuthenticator } from '../../src/platform/access/authenticator.ts'
import { isKey, newKey } from '../../src/platform/access/key-form.ts'
import { createKeyStore } from '../../src/platform/access/key-store.ts'
import { assertRole, type KeyStore, keyHash, type Principal } from '../../src/platform/access.ts'
import { migrate } from '../../src/platform/postgres/migrate.ts'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { testDatabase } from '../support/databases.ts'
import { startPostgres } from '../support/servers.ts'

const clock = createSystemClock()
let postgres: Postgres
let keys: KeyStore

const open = (url: string): Postgres =>
  createPostgres({ url, max: 4, applicationName: 'test', onError: () => undefined, maxWaitMs: 2_000 })

beforeAll(async () => {
  postgres = open((await testDatabase()).url)
  keys = createKeyStore({ postgres, clock })
})
afterAll(() => postgres.close())

/** A clock that moves only when told. */
function heldClock(): Clock & { move(ms: number): void } {
  let now = 1_000
  return { ...clock, monotonicMs: () => now, move: (ms) => void (now += ms) }
}

/** Counts how often the database is asked. */
function counting(store: KeyStore): Pick<KeyStore, 'find'> & { asked: string[][] } {
  const asked: string[][] = []
  return { asked, find: (hashes) => (asked.push(hashes), store.find(hashes)) }
}

describe('keys', () => {
  it('are kept as hashes: nothing in the row gives the key back', async () => {
    const { key, id } = await keys.create({ name: 'shop', role: 'producer', actor: 'test' })
    expect(isKey(key)).toBe(true)
    const { rows } = await postgres.query<{ text: string }>(
      'SELECT k::text AS text FROM api_keys k WHERE id = $1',
      [id],
    )
    expect(rows[0]?.text).not.toContain(key.slice(12))
    expect(JSON.stringify(await keys.list())).not.toContain(key.slice(12))
  })

  it('are refused without a look at the database when the checksum is wrong', () => {
    const key = newKey()
    const other = key.at(-1) === '0' ? '1' : '0'
    expect(isKey(key)).toBe(true)
    expect(isKey(key.slice(0, -1) + other)).toBe(false)
    expect(isKey('')).toBe(false)
  })

  it('are revoked by id or by prefix, once, and the audit log tells by whom', async () => {
    const { key, id, prefix } = await keys.create({ name: 'old', role: 'viewer', actor: 'ann' })
    const revoked = await keys.revoke(prefix, 'bob')
    expect(revoked).toMatchObject({ id, revokedAt: expect.any(String) })
    expect((await keys.revoke(id, 'bob')).revokedAt).toBe(revoked.revokedAt)
    await expect(keys.revoke('baton_zzzzzz', 'bob')).rejects.toMatchObject({ code: 'KEY_NOT_FOUND' })
    await expect(keys.revoke('', 'bob')).rejects.toMatchObject({ code: 'KEY_NOT_FOUND' })
    const entries = await createAuditLog({ postgres }).list({ limit: 10 })
    expect(
      entries.filter((entry) => entry.subject === id).map((entry) => `${entry.actor} ${entry.action}`),
    ).toEqual(['bob key.revoke', 'bob key.revoke', 'ann key.create'])
    expect(JSON.stringify(entries)).not.toContain(key.slice(12))
  })

  it('are not revoked when the prefix fits more than one', async () => {
    await keys.create({ name: 'a', role: 'viewer', actor: 'test' })
    await keys.create({ name: 'b', role: 'viewer', actor: 'test' })
    await expect(keys.revoke('baton_', 'bob')).rejects.toMatchObject({ code: 'KEY_AMBIGUOUS' })
  })
})

describe('authenticator', () => {
  it('asks the database once for all who come with a key within two seconds', async () => {
    const { key } = await keys.create({ name: 'busy', role: 'producer', actor: 'test' })
    const store = counting(keys)
    const { authenticate } = createAuthenticator({ keys: store, clock: heldClock(), environmentKeys: [] })
    const first = await Promise.all(Array.from({ length: 20 }, async () => authenticate(key)))
    expect(first.every((each) => each?.name === 'busy')).toBe(true)
    const later = authenticate(key)
    expect(later).not.toBeInstanceOf(Promise)
    expect((later as Principal).role).toBe('producer')
    expect(store.asked).toHaveLength(1)
  })

  it('refuses a revoked key within five seconds, also when it is used all the time', async () => {
    const { key, id } = await keys.create({ name: 'leaked', role: 'producer', actor: 'test' })
    const time = heldClock()
    const { authenticate } = createAuthenticator({ keys, clock: time, environmentKeys: [] })
    expect(await authenticate(key)).toBeDefined()
    time.move(1_900)
    expect(await authenticate(key)).toBeDefined()
    await keys.revoke(id, 'test')
    time.move(4_900)
    expect(await authenticate(key)).toBeUndefined()
    expect(await authenticate(key)).toBeUndefined()
  })

  it('reads a key in use again before it is due, so that no request waits', async () => {
    const { key } = await keys.create({ name: 'hot', role: 'producer', actor: 'test' })
    const time = heldClock()
    const store = counting(keys)
    const { authenticate } = createAuthenticator({ keys: store, clock: time, environmentKeys: [] })
    await authenticate(key)
    time.move(2_500)
    expect(authenticate(key)).not.toBeInstanceOf(Promise)
    await expect.poll(() => store.asked.length).toBe(2)
    await expect.poll(() => (time.move(1_900), authenticate(key) instanceof Promise)).toBe(false)
  })

  it('keeps a flood of guesses from the database: one with a wrong form never, others in few statements', async () => {
    const store = counting(keys)
    const { authenticate } = createAuthenticator({ keys: store, clock: heldClock(), environmentKeys: [] })
    for (let index = 0; index < 1_000; index++) expect(authenticate(`guess-${index}`)).toBeUndefined()
    expect(store.asked).toHaveLength(0)
    const guesses = Array.from({ length: 1_000 }, newKey)
    expect(await Promise.all(guesses.map(async (guess) => authenticate(guess)))).toEqual(
      guesses.map(() => undefined),
    )
    expect(store.asked.length).toBeLessThan(8)
    expect(authenticate(guesses.at(-1) ?? '')).toBeUndefined()
  })

  it('knows a key by its hash as well, as long as it is not revoked', async () => {
    const { key, id } = await keys.create({ name: 'session', role: 'viewer', actor: 'test' })
    const time = heldClock()
    const { authenticateHash } = createAuthenticator({
      keys,
      clock: time,
      environmentKeys: ['operator:a-secret-of-16-chars'],
    })
    expect(await authenticateHash(keyHash(key))).toMatchObject({ name: 'session', role: 'viewer' })
    expect(await authenticateHash(keyHash('a-secret-of-16-chars'))).toMatchObject({ role: 'operator' })
    expect(await authenticateHash(key)).toBeUndefined()
    await keys.revoke(id, 'test')
    time.move(4_900)
    expect(await authenticateHash(keyHash(key))).toBeUndefined()
  })

  it('takes keys of the environment without a database', async () => {
    const none = { find: () => Promise.reject(new Error('no database')) }
    const { authenticate } = createAuthenticator({
      keys: none,
      clock,
      environmentKeys: ['operator:a-secret:with-a-colon', 'viewer:another-secret-16'],
    })
    expect(authenticate('a-secret:with-a-colon')).toMatchObject({ role: 'operator' })
    expect(authenticate('another-secret-16')).toMatchObject({ role: 'viewer' })
    expect(authenticate('a-secret')).toBeUndefined()
  })

  it('says "not now" and not "no" while the database is away, and knows the key when it is back', async () => {
    const server = await startPostgres()
    await migrate(server.url)
    const away = open(server.url)
    try {
      const store = createKeyStore({ postgres: away, clock })
      const { key } = await store.create({ name: 'k', role: 'producer', actor: 'test' })
      const { authenticate } = createAuthenticator({ keys: store, clock, environmentKeys: [] })
      await server.kill()
      // A backend may answer once more before it notices that its postmaster is gone.
      const isAway = (): Promise<boolean> =>
        away.query('SELECT 1').then(
          () => false,
          () => true,
        )
      await expect.poll(isAway).toBe(true)
      await expect(async () => authenticate(key)).rejects.toMatchObject({ traits: { status: 503 } })
      await server.restart()
      await expect
        .poll(async () => Promise.resolve(authenticate(key)).catch(() => null), { timeout: 30_000 })
        .toMatchObject({ name: 'k' })
    } finally {
      await away.close()
    }
  })
})

describe('roles', () => {
  const principal = (role: Principal['role']): Principal => ({ owner: 'o', name: 'n', role })

  it('let the operator do all, and name who may do what another may not', () => {
    expect(() => assertRole(principal('operator'), [])).not.toThrow()
    expect(() => assertRole(principal('viewer'), ['producer', 'viewer'])).not.toThrow()
    expect(() => assertRole(principal('viewer'), ['producer'])).toThrow('needs the role producer or operator')
    expect(() => assertRole(principal('producer'), [])).toThrow('needs the role operator')
  })
})
