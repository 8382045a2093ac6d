import type { KeyObject } from 'node:crypto'
import type { Clock } from '../../../../core/clock.ts'
import { withLimit } from '../../../../core/lifecycle.ts'
import type { SendResult } from '../../provider.ts'
import type { HttpAnswer, HttpSender } from '../../sender/http-sender.ts'
import { retryAfterMs } from '../../sender/retry-after.ts'
import { signJwt } from '../jwt.ts'

/** What of a service account's file is needed. */
export interface ServiceAccount {
  projectId: string
  clientEmail: string
  /** Private, RSA. */
  privateKey: KeyObject
  privateKeyId: string | undefined
  /** Where assertions are changed into access tokens. */
  tokenUri: string
}

export type Access =
  | { kind: 'token'; text: string }
  /** `result`: what becomes of a push. `refused`: the account is not taken, and somebody has to look. */
  | { kind: 'failed'; refused: boolean; result: Extract<SendResult, { kind: 'retry' | 'unsent' }> }

/** The access token of a service account (RFC 7523), one for all that is sent by this process. */
export interface FcmAccess {
  /** The token to send with. Those who ask while one is being fetched wait for that one, and share its failure. */
  current(): Promise<Access>
  /** FCM refused this token. @returns whether another may help: false when it had only just been fetched */
  refused(token: string): boolean
}

export interface FcmAccessOptions {
  sender: HttpSender
  account: ServiceAccount
  clock: Clock
  /** Longest wait for the token's answer, ms. */
  timeoutMs: number
}

const scope = 'https://www.googleapis.com/auth/firebase.messaging'
const grantType = 'urn:ietf:params:oauth:grant-type:jwt-bearer'
/** Of the assertion, seconds; an hour is the most that Google takes. */
const assertionLife = 3_600
/** A token is replaced so long before its end, or when a fifth of its life is left, ms. */
const marginMs = 5 * 60_000
/** A token that cannot be replaced goes on being used until so long before its end, ms. */
const lastMs = 15_000
/** Whoever has such a token waits no longer than this from the question for another, ms. */
const patienceMs = 1_000
/** A token that was refused at this age could be one that was taken back, ms. */
const freshMs = 60_000
/** By how much the clock has to be off before that is what is blamed, ms. */
const blamedSkewMs = 30_000
/** Until an account that was refused is tried again, ms. */
const refusedMs = 5 * 60_000

interface Held {
  text: string
  atMs: number
  renewAtMs: number
  endsAtMs: number
}

export function createFcmAccess({ sender, account, clock, timeoutMs }: FcmAccessOptions): FcmAccess {
  let held: Held | undefined
  let flight: { access: Promise<Access>; atMs: number } | undefined
  /** What the clock of Google says more than ours, ms. */
  let skewMs = 0

  /** The token that there is, while it can still be used. */
  const living = (): Access | undefined =>
    held && clock.monotonicMs() < held.endsAtMs - lastMs ? { kind: 'token', text: held.text } : undefined

  const fetched = async (): Promise<Access> => {
    const askedMs = clock.monotonicMs()
    const answer = await sender.post(requestOf(account, clock.now() + skewMs), timeoutMs)
    const token = answer.kind === 'answer' && answer.status === 200 ? readToken(answer.body) : undefined
    if (token) {
      const lifeMs = token.expiresIn * 1_000
      const renewAtMs = askedMs + lifeMs - Math.min(marginMs, lifeMs / 5)
      held = { text: token.text, atMs: askedMs, renewAtMs, endsAtMs: askedMs + lifeMs }
      return { kind: 'token', text: token.text }
    }
    const former = living()
    if (former) return former
    if (answer.kind === 'answer' && adjusted(answer)) {
      const reason = `this machine's clock is wrong by ${Math.round(skewMs / 1_000)} s; heeding it from now on`
      return { kind: 'failed', refused: false, result: { kind: 'retry', reason, afterMs: 100 } }
    }
    return failureOf(answer, clock.now())
  }

  /** An assertion of another hour is refused; the answer says which hour it is. */
  const adjusted = ({ status, headers, body }: Answer): boolean => {
    if (status !== 400 || readJson(body)['error'] !== 'invalid_grant') return false
    const theirs = Date.parse(headers['date'] ?? '')
    if (Number.isNaN(theirs) || Math.abs(theirs - clock.now() - skewMs) < blamedSkewMs) return false
    skewMs = theirs - clock.now()
    return true
  }

  return {
    current: async () => {
      if (held && clock.monotonicMs() < held.renewAtMs) return { kind: 'token', text: held.text }
      const nowMs = clock.monotonicMs()
      flight ??= {
        access: fetched().finally(() => {
          flight = undefined
        }),
        atMs: nowMs,
      }
      const former = living()
      if (!former) return flight.access
      return withLimit(flight.access, Math.max(0, flight.atMs + patienceMs - nowMs)).catch(() => former)
    },
    refused: (token) => {
      // Others that were under way have said so before, and another was fetched since.
      if (!held || held.text !== token) return true
      const old = clock.monotonicMs() - held.atMs > freshMs
      held = undefined
      return old
    },
  }
}

type Answer = Extract<HttpAnswer, { kind: 'answer' }>

function requestOf(account: ServiceAccount, now: number) {
  const { clientEmail: iss, tokenUri: aud, privateKeyId: kid, privateKey: key } = account
  const iat = Math.floor(now / 1_000)
  const claims = { iss, scope, aud, iat, exp: iat + assertionLife }
  const assertion = signJwt({ alg: 'RS256', key, claims, ...(kid === undefined ? {} : { kid }) })
  const body = Buffer.from(new URLSearchParams({ grant_type: grantType, assertion }).toString())
  const headers = { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' }
  return { url: new URL(aud), headers, body }
}

function readToken(body: string): { text: string; expiresIn: number } | undefined {
  const { access_token: text, expires_in: life } = readJson(body)
  if (typeof text !== 'string' || !/^[\x21-\x7e]+$/.test(text)) return undefined
  const expiresIn = Number(life ?? assertionLife)
  return { text, expiresIn: expiresIn > 0 ? expiresIn : assertionLife }
}

type Failure = Extract<Access, { kind: 'failed' }>

function failureOf(answer: HttpAnswer, now: number): Access {
  const failed = (refused: boolean, result: Failure['result']): Access => ({
    kind: 'failed',
    refused,
    result,
  })
  // The push itself went nowhere, whatever became of the question for a token.
  if (answer.kind !== 'answer') {
    return failed(answer.kind === 'refused', { kind: 'unsent', reason: `no access token: ${answer.reason}` })
  }
  const { error, error_description: about } = readJson(answer.body)
  const why = [error, about].filter((each) => typeof each === 'string').join(': ')
  const reason = `no access token: ${answer.status} ${why}`.trim().slice(0, 200)
  const wait = retryAfterMs(answer.headers, now)
  if (answer.status >= 500 || answer.status === 429 || answer.status === 408) {
    return failed(false, { kind: 'retry', reason, ...(wait === undefined ? {} : { afterMs: wait }) })
  }
  return failed(true, { kind: 'retry', reason, afterMs: wait ?? refusedMs })
}

function readJson(body: string): Record<string, unknown> {
  try {
    const found: unknown = JSON.parse(body)
    return typeof found === 'object' && found !== null ? (found as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}
