import { verify } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createFcmAccess, type FcmAccess } from '../../../../src/domain/push/providers/fcm/access.ts'
import { createHttpSender, type HttpSender } from '../../../../src/domain/push/sender/http-sender.ts'
import {
  fcmAccount,
  readJwt,
  startTokenService,
  type TokenService,
} from '../../../support/provider-accounts.ts'
import { serviceCa } from '../../../support/push-service.ts'
import { createTurnedClock, type TurnedClock } from '../../../support/turned-clock.ts'

const minute = 60_000
const made = fcmAccount('')

describe('the access token of a service account', () => {
  let tokens: TokenService
  let sender: HttpSender
  let clock: TurnedClock
  let access: FcmAccess
  beforeEach(async () => {
    tokens = await startTokenService()
    clock = createTurnedClock(Date.now())
    sender = createHttpSender({ clock, allowPrivate: true, ca: serviceCa })
    access = createFcmAccess({
      sender,
      account: { ...made.account, tokenUri: tokens.uri },
      clock,
      timeoutMs: 1_500,
    })
  })
  afterEach(async () => {
    await sender.close()
    await tokens.service.close()
  })
  const assertion = (at = 0): string =>
    new URLSearchParams(tokens.service.received[at]?.body.toString()).get('assertion') ?? ''

  it('is asked for with an assertion that the account signed', async () => {
    expect(await access.current()).toEqual({ kind: 'token', text: 'access-1' })
    const [received] = tokens.service.received
    expect(received).toMatchObject({
      path: '/token',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
    })
    const form = new URLSearchParams(received?.body.toString())
    expect(form.get('grant_type')).toBe('urn:ietf:params:oauth:grant-type:jwt-bearer')
    const { head, claims, signed, signature } = readJwt(assertion())
    const iat = Math.floor(clock.now() / 1_000)
    expect(head).toEqual({ typ: 'JWT', alg: 'RS256', kid: 'key-1' })
    expect(claims).toEqual({
      iss: made.account.clientEmail,
      scope: 'https://www.googleapis.com/auth/firebase.messaging',
      aud: tokens.uri,
      iat,
      exp: iat + 3_600,
    })
    expect(verify('sha256', signed, made.publicKey, signature)).toBe(true)
  })

  it('is fetched once for all who ask at once, and kept until shortly before its end', async () => {
    const all = await Promise.all(Array.from({ length: 20 }, () => access.current()))
    expect(new Set(all.map((each) => JSON.stringify(each))).size).toBe(1)
    clock.pass(54 * minute)
    expect(await access.current()).toEqual({ kind: 'token', text: 'access-1' })
    expect(tokens.given).toBe(1)
    clock.pass(minute)
    expect(await access.current()).toEqual({ kind: 'token', text: 'access-2' })
  })

  it('goes on being used while no other can be had, but not past its end', async () => {
    await access.current()
    tokens.service.answer({ status: 503 })
    clock.pass(58 * minute)
    expect(await access.current()).toEqual({ kind: 'token', text: 'access-1' })
    clock.pass(2 * minute)
    expect(await access.current()).toMatchObject({
      kind: 'failed',
      refused: false,
      result: { kind: 'retry' },
    })
  })

  it('goes on being used while who gives them hangs, though one question takes all the time of a send', async () => {
    const { account } = made
    const patient = createFcmAccess({
      sender,
      account: { ...account, tokenUri: tokens.uri },
      clock,
      timeoutMs: 5_000,
    })
    await patient.current()
    tokens.service.answer('hang')
    clock.pass(56 * minute)
    const askedAt = performance.now()
    const all = await Promise.all([patient.current(), patient.current()])
    all.push(await patient.current())
    expect(performance.now() - askedAt).toBeLessThan(3_000)
    expect(all).toEqual(all.map(() => ({ kind: 'token', text: 'access-1' })))
  })

  it('is fetched anew when FCM refuses it, once', async () => {
    await access.current()
    clock.pass(2 * minute)
    expect(access.refused('access-1')).toBe(true)
    expect(await access.current()).toEqual({ kind: 'token', text: 'access-2' })
    // Said late of the former one.
    expect(access.refused('access-1')).toBe(true)
    expect(await access.current()).toEqual({ kind: 'token', text: 'access-2' })
    expect(access.refused('access-2')).toBe(false)
  })

  it('is got with a clock that is a day off, by the clock of who gives it', async () => {
    const rightAt = clock.now()
    clock.set(rightAt - 24 * 60 * minute)
    tokens.service.answer((received) => {
      const sent = new URLSearchParams(received.body.toString()).get('assertion') ?? ''
      const iat = Number(readJwt(sent).claims['iat']) * 1_000
      const headers = { date: new Date(rightAt).toUTCString() }
      return Math.abs(iat - rightAt) > 5 * minute
        ? {
            status: 400,
            headers,
            body: '{"error":"invalid_grant","error_description":"Check your iat and exp"}',
          }
        : { status: 200, headers, body: '{"access_token":"late","expires_in":3599}' }
    })
    expect(await access.current()).toMatchObject({
      kind: 'failed',
      refused: false,
      result: { kind: 'retry', afterMs: 100, reason: expect.stringContaining('clock') },
    })
    expect(await access.current()).toEqual({ kind: 'token', text: 'late' })
  })

  it.each([
    [
      { status: 400, body: '{"error":"invalid_grant","error_description":"account not found"}' },
      true,
      300_000,
    ],
    [{ status: 401, body: '{"error":"invalid_client"}' }, true, 300_000],
    [{ status: 200, body: '{"no":"token"}' }, true, 300_000],
    [{ status: 429, headers: { 'retry-after': '9' } }, false, 9_000],
    [{ status: 500, body: 'oops' }, false, undefined],
  ])('says of %j whether somebody has to look, and how long to wait', async (script, refused, afterMs) => {
    tokens.service.answer(script)
    const found = await access.current()
    expect(found).toMatchObject({ kind: 'failed', refused, result: { kind: 'retry' } })
    expect(found.kind === 'failed' && 'afterMs' in found.result ? found.result.afterMs : undefined).toBe(
      afterMs,
    )
    expect(JSON.stringify(found)).not.toContain(assertion())
  })

  it('says that nothing left the house when nobody gives one', async () => {
    tokens.service.answer('hang')
    expect(await access.current()).toMatchObject({ kind: 'failed', result: { kind: 'unsent' } })
    expect(tokens.given).toBe(0)
  })
})
