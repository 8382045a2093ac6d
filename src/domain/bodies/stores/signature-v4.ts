import { createHash, createHmac } from 'node:crypto'

/**
 * AWS Signature Version 4 in the Authorization header, as S3 wants it: the path is encoded once.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 */
export interface SignatureV4 {
  accessKeyId: string
  secretAccessKey: string
  region: string
  /** `s3` unless said. */
  service?: string
}

export interface RequestToSign {
  method: string
  /** Encoded with `encodePath`. */
  path: string
  query?: Record<string, string>
  /** Host and all others that are to be signed, except those that signing adds. */
  headers: Record<string, string>
  /** sha256 of the content, hex. */
  contentSha256: string
  /** Epoch ms, within 15 minutes of the server's time. */
  now: number
}

/** The headers of the request with `x-amz-date`, `x-amz-content-sha256` and `Authorization`. */
export function sign(credentials: SignatureV4, request: RequestToSign): Record<string, string> {
  const instant = new Date(request.now).toISOString().replaceAll(/[-:]|\.\d{3}/g, '')
  const headers = { ...request.headers, 'x-amz-date': instant, 'x-amz-content-sha256': request.contentSha256 }
  const { service = 's3', region, accessKeyId, secretAccessKey } = credentials
  const scope = `${instant.slice(0, 8)}/${region}/${service}/aws4_request`
  const names = Object.keys(headers).sort(byName)
  const signedHeaders = names.map((name) => name.toLowerCase()).join(';')
  const canonical = [
    request.method,
    request.path,
    encodeQuery(request.query ?? {}),
    ...names.map((name) => `${name.toLowerCase()}:${valueOf(headers, name)}`),
    '',
    signedHeaders,
    request.contentSha256,
  ].join('\n')
  const toSign = `AWS4-HMAC-SHA256\n${instant}\n${scope}\n${sha256(canonical)}`
  const key = scope
    .split('/')
    .reduce<string | Buffer>((secret, part) => hmac(secret, part), `AWS4${secretAccessKey}`)
  const signature = createHmac('sha256', key).update(toSign).digest('hex')
  const authorization = `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scope},SignedHeaders=${signedHeaders},Signature=${signature}`
  return { ...headers, Authorization: authorization }
}

const byName = (a: string, b: string): number => (a.toLowerCase() < b.toLowerCase() ? -1 : 1)
const valueOf = (headers: Record<string, string>, name: string): string =>
  (headers[name] ?? '').trim().replaceAll(/ +/g, ' ')
const hmac = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest()
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

/** Everything but the unreserved characters of RFC 3986, which is more than `encodeURIComponent` encodes. */
const encode = (text: string): string =>
  encodeURIComponent(text).replaceAll(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  )

export const encodePath = (path: string): string => path.split('/').map(encode).join('/')

/** In the order of the names, as it must be signed. */
export const encodeQuery = (query: Record<string, string>): string =>
  Object.entries(query)
    .map(([name, value]) => `${encode(name)}=${encode(value)}`)
    .sort()
    .join('&')
