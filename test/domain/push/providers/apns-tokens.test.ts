import { verify } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  createMemoryShelf,
  createPostgresShelf,
  type TokenShelf,
} from '../../../../src/domain/push/providers/apns/token-shelf.ts'
import { createApnsTokens } from '../../../../src/domain/push/providers/apns/tokens.ts'
import { createPostgres, type Postgres } from '../../../../src/platform/postgres/postgres.ts'
import { testDatabase } from '../../../support/databases.ts'
import { apnsAccount, readJwt } from '../../../support/provider-accounts.ts'
import { createTurnedClock } from '../../../support/turned-clock.ts'

const minute = 60_000
const { publicKey, ...account } = apnsAccount()

describe('the provider token', () => {
  const make = (shelf?: TokenShelf) => {
    const clock = createTurnedClock()
    return {
      clock,
      tokens: createApnsTokens({ ...account, clock, shelf: shelf ?? createMemoryShelf(clock) }),
    }
  }

  it('is signed with ES256 for team and key', async () => {
    const { clock, tokens } = make()
    const { head, claims, signed, signature } = readJwt(await tokens.current())
    expect(head).toEqual({ typ: 'JWT', alg: 'ES256', kid: account.keyId })
    expect(claims).toEqual({ iss: account.teamId, iat: Math.floor(clock.now() / 1_000) })
    expect(signature).toHaveLength(64)
    expect(verify('sha256', signed, { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature)).toBe(true)
  })

  it('stays the same for 50 minutes, and never gets an hour old', async () => {
    const { clock, tokens } = make()
    const first = await tokens.current()
    clock.pass(49 * minute)
    expect(await tokens.current()).toBe(first)
    clock.pass(2 * minute)
    expect(await tokens.current()).not.toBe(first)
  })

  it('is signed once for all who ask at once', async () => {
    const { tokens } = make()
    const all = await Promise.all(Array.from({ length: 20 }, () => tokens.current()))
    expect(new Set(all).size).toBe(1)
  })

  it('is replaced when Apple calls it expired, but never before 20 minutes', async () => {
    const { clock, tokens } = make()
    const first = await tokens.current()
    clock.pass(5 * minute)
    expect(await tokens.refused(first)).toBe(15 * minute)
    expect(await tokens.current()).toBe(first)
    clock.pass(15 * minute)
    expect(await tokens.refused(first)).toBe(0)
    const second = await tokens.current()
    expect(second).not.toBe(first)
    // Others whose sends with the first are answered late do not cost another.
    expect(await tokens.refused(first)).toBe(0)
    expect(await tokens.current()).toBe(second)
  })

  it('comes back when Apple says that it changed too often, and no other is signed for 20 minutes', async () => {
    const { clock, tokens } = make()
    const first = await tokens.current()
    clock.pass(25 * minute)
    await tokens.refused(first)
    expect(await tokens.current()).not.toBe(first)
    tokens.hold()
    expect(await tokens.current()).toBe(first)
    clock.pass(19 * minute)
    expect(await tokens.current()).toBe(first)
    clock.pass(20 * minute)
    expect(await tokens.current()).not.toBe(first)
  })

  it('does not get younger or older with a wall clock that is set', async () => {
    const { clock, tokens } = make()
    const first = await tokens.current()
    clock.set(clock.now() - 48 * 60 * minute)
    expect(await tokens.current()).toBe(first)
    clock.pass(51 * minute)
    const second = readJwt(await tokens.current())
    expect(second.claims['iat']).toBe(Math.floor(clock.now() / 1_000))
  })

  it('is signed all the same while the shelf hangs, soon enough for what is to be sent', async () => {
    const never = (): Promise<never> => new Promise(() => undefined)
    const { tokens } = make({ get: never, put: never })
    const askedAt = performance.now()
    const first = await tokens.current()
    expect(performance.now() - askedAt).toBeLessThan(6_000)
    expect(await tokens.current()).toBe(first)
  }, 8_000)

  it('is signed all the same while the shelf is away, and not more often', async () => {
    const away: TokenShelf = {
      get: () => Promise.reject(new Error('away')),
      put: () => Promise.reject(new Error('away')),
    }
    const { clock, tokens } = make(away)
    const first = await tokens.current()
    clock.pass(10 * minute)
    expect(await tokens.refused(first)).toBe(10 * minute)
    clock.pass(41 * minute)
    expect(await tokens.current()).not.toBe(first)
  })
})

describe('the token that processes share', () => {
  let postgres: Postgres
  beforeAll(async () => {
    const { url } = await testDatabase()
    postgres = createPostgres({ url, max: 8, applicationName: 'tokens', onError: () => undefined })
  })
  afterAll(() => postgres.close())
  /** A process whose clock is wrong by a day, which must not matter. */
  const processOf = (key = account.key, skewMs = 24 * 60 * minute) => {
    const clock = createTurnedClock(Date.now() + skewMs)
    const shelf = createPostgresShelf({ postgres, key })
    return createApnsTokens({ teamId: account.teamId, keyId: account.keyId, key, clock, shelf })
  }
  const age = (minutes: number) =>
    postgres.query(`UPDATE provider_tokens SET made_at = made_at - $1 * interval '1 minute'`, [minutes])

  it('is one for all of them, by the clock of Postgres, and lies there sealed', async () => {
    const all = Array.from({ length: 8 }, (_none, turn) => processOf(account.key, turn * minute))
    const asked = await Promise.all(all.map((each) => each.current()))
    const later = await processOf().current()
    expect(new Set([...asked, later]).size).toBe(1)
    const iat = readJwt(later).claims['iat'] as number
    expect(Math.abs(iat * 1_000 - Date.now())).toBeLessThan(minute)
    const { rows } = await postgres.query<{ sealed: string }>('SELECT sealed FROM provider_tokens')
    expect(rows).toHaveLength(1)
    expect(Buffer.from(rows[0]?.sealed ?? '', 'base64url').toString('latin1')).not.toContain(
      later.slice(0, 20),
    )
  })

  it('is replaced by the first who finds it old, and taken over by the others', async () => {
    const all = Array.from({ length: 8 }, () => processOf())
    const tokensOf = async () => new Set(await Promise.all(all.map((each) => each.current())))
    const [first = ''] = await tokensOf()
    await age(21)
    const waits = await Promise.all(all.map((each) => each.refused(first)))
    expect(waits).toEqual(all.map(() => 0))
    const after = await tokensOf()
    expect(after.size).toBe(1)
    expect(after).not.toContain(first)
  })

  it('is another for another key with the same id, and is mended when its row is spoilt or from the future', async () => {
    const first = await processOf().current()
    const stranger = apnsAccount()
    expect(await processOf(stranger.key).current()).not.toBe(first)
    await postgres.query(`UPDATE provider_tokens SET sealed = 'spoilt'`)
    const second = await processOf().current()
    expect(second).not.toBe(first)
    expect(await processOf().current()).toBe(second)
    await age(-600)
    const mended = await processOf().current()
    expect(mended).not.toBe(second)
    expect(await processOf().current()).toBe(mended)
    const { rows } = await postgres.query('SELECT name FROM provider_tokens WHERE made_at > now()')
    expect(rows).toHaveLength(1)
  })
})
