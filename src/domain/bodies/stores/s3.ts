import { createHash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import type { Clock } from '../../../core/clock.ts'
import type { Metrics } from '../../../platform/metrics.ts'
import { isBodyId } from '../body-id.ts'
import type { BodySource, BodyStore, StoredBody } from '../body-store.ts'
import { BODY_UNAVAILABLE } from '../errors.ts'
import { headOf, objectOf, rangeHeader } from './answers.ts'
import { createHttpClient, discard, type HttpClient, type HttpExchange, readText } from './http-client.ts'
import { createRemoteStore, type RemoteObjects } from './remote.ts'
import { encodePath, encodeQuery, type SignatureV4, sign } from './signature-v4.ts'

export interface S3StoreOptions {
  /** `http:` or `https:`; path-style addresses are used. */
  endpoint: URL
  bucket: string
  /** Before every key; without slashes at its ends. */
  prefix?: string
  credentials: SignatureV4
  clock: Clock
  timeoutMs?: number
  maxConnections?: number
  spoolFolder?: string
  /** Failures in a row after which it is given a rest; 3 unless said. */
  failures?: number
  metrics?: Metrics | undefined
}

/** Bodies in a bucket of an S3-compatible service. The bucket must exist, strongly consistent as S3 itself is. */
export function createS3Store(options: S3StoreOptions): BodyStore {
  const { endpoint, bucket, prefix } = options
  const name = `s3://${endpoint.host}/${bucket}${prefix ? `/${prefix}` : ''}`
  const client = createHttpClient({
    store: name,
    origin: endpoint,
    clock: options.clock,
    timeoutMs: options.timeoutMs ?? 30_000,
    maxConnections: options.maxConnections ?? 32,
    failures: options.failures,
    metrics: options.metrics,
  })
  return createRemoteStore(createS3Objects(name, options, client), options.spoolFolder ?? tmpdir())
}

const emptySha256 = createHash('sha256').digest('hex')

interface Call extends Pick<HttpExchange, 'method' | 'body' | 'signal' | 'shared'> {
  key?: string
  query?: Record<string, string>
  headers?: Record<string, string>
  sha256?: string
}

type Caller = (call: Call) => Promise<IncomingMessage>

/** Signs each call and sends it. */
function createCaller(
  { endpoint, bucket, clock, credentials }: S3StoreOptions,
  client: HttpClient,
  prefix: string,
): Caller {
  return async ({ key, query = {}, headers = {}, sha256 = emptySha256, ...rest }) => {
    const path = encodePath(key === undefined ? `/${bucket}` : `/${bucket}/${prefix}${key}`)
    const signed = sign(credentials, {
      method: rest.method,
      path,
      query,
      headers: { ...headers, host: endpoint.host },
      contentSha256: sha256,
      now: clock.now(),
    })
    const search = Object.keys(query).length === 0 ? '' : `?${encodeQuery(query)}`
    return client.send({ ...rest, path: `${path}${search}`, headers: signed })
  }
}

function createS3Objects(name: string, options: S3StoreOptions, client: HttpClient): RemoteObjects {
  const prefix = options.prefix ? `${options.prefix}/` : ''
  const bodies = `${prefix}bodies/`
  const call = createCaller(options, client, prefix)
  const head: RemoteObjects['head'] = async (key) => {
    const answer = await call({ method: 'HEAD', key })
    if (answer.statusCode !== 200) return absentOr(name, answer)
    await discard(answer)
    return headOf(name, answer)
  }

  return {
    name,
    keyOf: (id) => `bodies/${id}`,
    get: async (key, slice) => {
      const answer = await call({ method: 'GET', key, headers: rangeHeader(slice), shared: true })
      if ((answer.statusCode ?? 0) >= 400 && answer.statusCode !== 416) return absentOr(name, answer)
      return objectOf(name, answer, slice, () => head(key))
    },
    head,
    put: async (key, body, { sha256, signal }) => {
      const answer = await call({
        method: 'PUT',
        key,
        body,
        signal,
        sha256: sha256 ?? (await digestOf(body)),
      })
      if (answer.statusCode !== 200) throw await refusal(name, answer)
      await discard(answer)
    },
    remove: async (key) => {
      // S3 says 204 also for what was not there.
      if (!(await head(key))) return false
      const answer = await call({ method: 'DELETE', key })
      if (answer.statusCode !== 204 && answer.statusCode !== 200) throw await refusal(name, answer)
      await discard(answer)
      return true
    },
    list: async (after, limit) => {
      const query: Record<string, string> = { 'list-type': '2', prefix: bodies, 'max-keys': String(limit) }
      if (after !== undefined) query['start-after'] = `${bodies}${after}`
      const answer = await call({ method: 'GET', query })
      if (answer.statusCode !== 200) throw await refusal(name, answer)
      return readListing(await readText(answer, 8 * 1_048_576), bodies)
    },
    close: client.close,
  }
}

async function digestOf(body: BodySource): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of body.open()) hash.update(chunk)
  return hash.digest('hex')
}

/** Undefined for an object that is not there. A bucket that is not there says 404 as well, and is another matter. */
async function absentOr(store: string, answer: IncomingMessage): Promise<undefined> {
  if (answer.statusCode !== 404) throw await refusal(store, answer)
  const code = codeOf(await readText(answer, 65_536))
  if (code !== undefined && code !== 'NoSuchKey') {
    throw BODY_UNAVAILABLE({ store, reason: `it answered ${code}` })
  }
  return undefined
}

async function refusal(store: string, answer: IncomingMessage): Promise<Error> {
  const code = codeOf(await readText(answer, 65_536)) ?? ''
  return BODY_UNAVAILABLE({ store, reason: `it answered HTTP ${answer.statusCode} ${code}`.trim() })
}

const codeOf = (xml: string): string | undefined => /<Code>(\w+)<\/Code>/.exec(xml)?.[1]

/** Our keys hold nothing that XML would escape, so what does not look like one is not ours. */
function readListing(xml: string, prefix: string): StoredBody[] {
  return [...xml.matchAll(/<Contents>(.*?)<\/Contents>/gs)].flatMap(([, entry = '']) => {
    const of = (tag: string): string => new RegExp(`<${tag}>([^<]*)</${tag}>`).exec(entry)?.[1] ?? ''
    const id = of('Key').slice(prefix.length)
    return isBodyId(id) ? [{ id, size: Number(of('Size')), modifiedAt: Date.parse(of('LastModified')) }] : []
  })
}
