import { Readable } from 'node:stream'
import type { Clock } from '../../core/clock.ts'
import { codeOf, messageOf } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import { SITE_ANSWER_INVALID, SITE_REFUSED, SITE_UNREACHABLE } from './client-errors.ts'

export interface SiteClientOptions {
  /** `https://host` or `http://host:port`, as an operator gave it. */
  url: string
  /** API key with the role operator. Never logged, and sent nowhere else: a redirect is refused. */
  key: string
  clock: Clock
  /** Longest wait for an answer to `post`, ms. */
  timeoutMs?: number
}

export interface PostOptions {
  signal?: AbortSignal | undefined
  /** Largest answer, bytes. */
  maxBytes?: number
  timeoutMs?: number
}

/** Speaks to another site over HTTP. TLS is checked as Node does it. */
export interface SiteClient {
  /** For people: the URL without what could be a secret. */
  readonly site: string
  /** @throws SITE_UNREACHABLE, SITE_ANSWER_INVALID, SITE_REFUSED (see `refusalOf`) */
  post(path: string, body: unknown, options?: PostOptions): Promise<unknown>
  /** Streams bytes. Throws as `post` does. */
  put(path: string, upload: Upload, options?: PostOptions): Promise<unknown>
}

export interface Upload {
  bytes: Readable
  headers: Record<string, string>
}

/** What the other site said when it refused. */
export interface Refusal {
  status: number
  /** Of docs/errors.md; empty when it said none. */
  code: string
  detail: string
  /** Values that came with it, such as `epoch` or `cursor`. */
  values: Record<string, string>
  /** ms; undefined unless it said so. */
  retryAfterMs: number | undefined
}

const defaultTimeoutMs = 30_000
const defaultBytes = 1_048_576
const problemBytes = 65_536
const longestRetryAfterMs = 300_000

export function createSiteClient(options: SiteClientOptions): SiteClient {
  const { clock, key, timeoutMs = defaultTimeoutMs } = options
  const base = new URL(options.url)
  const site = base.origin

  const send = async (path: string, init: RequestInit, wish: PostOptions): Promise<unknown> => {
    const id = newId(clock.now())
    const limit = AbortSignal.timeout(wish.timeoutMs ?? timeoutMs)
    const signal = wish.signal ? AbortSignal.any([wish.signal, limit]) : limit
    const url = new URL(`${base.pathname.replace(/\/+$/, '')}${path}`, base.origin)
    try {
      const response = await fetch(url, {
        ...init,
        // With one the key would go to whoever answers here.
        redirect: 'manual',
        signal,
        headers: { ...headersOf(init), authorization: `Bearer ${key}`, 'x-request-id': id },
      })
      return await readAnswer(site, response, { id, maxBytes: wish.maxBytes ?? defaultBytes })
    } catch (error) {
      throw named(site, error, wish.timeoutMs ?? timeoutMs)
    }
  }
  return {
    site,
    post: (path, body, wish = {}) =>
      send(
        path,
        { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } },
        wish,
      ),
    put: (path, { bytes, headers }, wish = {}) => {
      const init: RequestInit & { duplex: 'half' } = {
        method: 'PUT',
        body: Readable.toWeb(bytes) as ReadableStream<Uint8Array>,
        duplex: 'half',
        headers: { 'content-type': 'application/octet-stream', ...headers },
      }
      return send(path, init, wish).finally(() => bytes.destroy())
    },
  }
}

const headersOf = (init: RequestInit): Record<string, string> => init.headers as Record<string, string>

interface Expected {
  id: string
  maxBytes: number
}

async function readAnswer(site: string, response: Response, { id, maxBytes }: Expected): Promise<unknown> {
  const type = response.headers.get('content-type') ?? ''
  if (!response.ok) throw await refused(site, response)
  const text = await readText(site, response, maxBytes)
  if (!/^application\/json\b/.test(type)) {
    throw SITE_ANSWER_INVALID({ site, reason: `its answer is of the type ${type.slice(0, 80) || 'none'}` })
  }
  // An answer to another request must never be taken for ours.
  if (response.headers.get('x-request-id') !== id) {
    throw SITE_ANSWER_INVALID({ site, reason: 'its answer does not bear the id of the request' })
  }
  try {
    return JSON.parse(text) as unknown
  } catch (error) {
    throw SITE_ANSWER_INVALID({ site, reason: 'its answer is no JSON' }, { cause: error })
  }
}

async function readText(site: string, response: Response, maxBytes: number): Promise<string> {
  if (!response.body) return ''
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of response.body as ReadableStream<Uint8Array>) {
    size += chunk.length
    if (size > maxBytes) throw SITE_ANSWER_INVALID({ site, reason: `its answer is over ${maxBytes} bytes` })
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

interface ProblemDocument {
  code?: unknown
  detail?: unknown
  errors?: unknown
}

async function refused(site: string, response: Response): Promise<Error> {
  const { status } = response
  if (status < 400) {
    await response.body?.cancel()
    return SITE_ANSWER_INVALID({ site, reason: `it answers ${status}, which leads elsewhere` })
  }
  const text = await readText(site, response, problemBytes)
  const problem = problemOf(text)
  const code = typeof problem.code === 'string' ? problem.code : ''
  const detail = typeof problem.detail === 'string' ? problem.detail.slice(0, 500) : 'it does not say why'
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN)
  const retryAfterMs = Number.isFinite(seconds)
    ? Math.min(Math.max(0, seconds * 1_000), longestRetryAfterMs)
    : undefined
  const refusal: Refusal = { status, code, detail, values: valuesOf(problem.errors), retryAfterMs }
  return SITE_REFUSED(
    { site, status, code: code || 'without a code', reason: detail },
    { cause: refusal, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) },
  )
}

function problemOf(text: string): ProblemDocument {
  try {
    const value = JSON.parse(text) as unknown
    return typeof value === 'object' && value !== null ? value : {}
  } catch {
    return {}
  }
}

/** Values travel as `errors` of the problem: `{path: '/epoch', message: '7'}`. */
function valuesOf(errors: unknown): Record<string, string> {
  const values: Record<string, string> = {}
  for (const each of Array.isArray(errors) ? errors.slice(0, 20) : []) {
    const { path, message } = (each ?? {}) as { path?: unknown; message?: unknown }
    if (typeof path === 'string' && typeof message === 'string')
      values[path.replace(/^\//, '')] = message.slice(0, 200)
  }
  return values
}

/** What the other site said, when an error is its refusal. */
export function refusalOf(error: unknown): Refusal | undefined {
  return SITE_REFUSED.is(error) ? (error.cause as Refusal) : undefined
}

const ours = new Set([SITE_UNREACHABLE.code, SITE_ANSWER_INVALID.code, SITE_REFUSED.code])

function named(site: string, error: unknown, limitMs: number): unknown {
  if (ours.has(codeOf(error) ?? '')) return error
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
  const reason =
    error instanceof Error && error.name === 'TimeoutError'
      ? `it did not answer within ${limitMs} ms`
      : messageOf(cause)
  return SITE_UNREACHABLE({ site, reason }, { cause: error })
}
