import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type SignatureV4, sign } from '../../src/domain/bodies/stores/signature-v4.ts'

/** A service that speaks as much S3 as a store of bodies needs, and refuses what is not signed as it came. */
export interface S3Server {
  readonly endpoint: URL
  readonly bucket: string
  readonly credentials: SignatureV4
  readonly objects: Map<string, { bytes: Buffer; at: Date }>
  stop(): Promise<void>
}

interface Failure {
  status: number
  code: string
}

/** @param tellsSize false: 416 comes without the size of the object, as from s3rver 3.7 */
export async function startS3Server({ tellsSize = true } = {}): Promise<S3Server> {
  const objects: S3Server['objects'] = new Map()
  const credentials = { accessKeyId: 'KEY', secretAccessKey: 'secret/with+signs', region: 'eu-central-1' }
  const bucket = 'bodies.test'
  const server = createServer((request, response) => {
    void answer(request, response).catch(() => response.destroy())
  })

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const content = Buffer.concat((await request.toArray()) as Buffer[])
    const url = new URL(request.url ?? '', 'http://unused')
    const failure = faultOf(request, url, content, credentials)
    if (failure) return refuse(response, failure)
    const [, name, ...rest] = url.pathname.split('/').map(decodeURIComponent)
    if (name !== bucket) return refuse(response, { status: 404, code: 'NoSuchBucket' })
    if (rest.length === 0) return list(response, url.searchParams)
    handle(request, response, { key: rest.join('/'), content })
  }

  const handle = (
    request: IncomingMessage,
    response: ServerResponse,
    { key, content }: { key: string; content: Buffer },
  ): void => {
    if (request.method === 'PUT') {
      objects.set(key, { bytes: content, at: new Date() })
      return void response.end()
    }
    if (request.method === 'DELETE') {
      objects.delete(key)
      return void response.writeHead(204).end()
    }
    const found = objects.get(key)
    if (!found) return refuse(response, { status: 404, code: 'NoSuchKey' })
    const etag = `"${createHash('md5').update(found.bytes).digest('hex')}"`
    const headers = { ETag: etag, 'Last-Modified': found.at.toUTCString() }
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
    if (!range)
      return void response
        .writeHead(200, { ...headers, 'Content-Length': found.bytes.length })
        .end(request.method === 'HEAD' ? undefined : found.bytes)
    const [start, last] = [
      Number(range[1]),
      Math.min(range[2] ? Number(range[2]) : Infinity, found.bytes.length - 1),
    ]
    if (start > last) {
      const size = tellsSize ? { 'Content-Range': `bytes */${found.bytes.length}` } : {}
      return void response.writeHead(416, size).end()
    }
    const part = found.bytes.subarray(start, last + 1)
    const shown = {
      ...headers,
      'Content-Range': `bytes ${start}-${last}/${found.bytes.length}`,
      'Content-Length': part.length,
    }
    response.writeHead(206, shown).end(part)
  }

  const list = (response: ServerResponse, query: URLSearchParams): void => {
    const keys = [...objects.keys()].filter((key) => key.startsWith(query.get('prefix') ?? '')).sort()
    const page = keys
      .filter((key) => key > (query.get('start-after') ?? ''))
      .slice(0, Number(query.get('max-keys')))
    const entries = page.map((key) => {
      const { bytes, at } = objects.get(key) as { bytes: Buffer; at: Date }
      return `<Contents><Key>${key}</Key><LastModified>${at.toISOString()}</LastModified><Size>${bytes.length}</Size></Contents>`
    })
    response.end(`<?xml version="1.0"?><ListBucketResult>${entries.join('\n')}</ListBucketResult>`)
  }

  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    endpoint: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
    bucket,
    credentials,
    objects,
    stop: async () => {
      if (!server.listening) return
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Signs what came once more: the key, the path, the query or a signed header that differs gives another signature. */
function faultOf(
  request: IncomingMessage,
  url: URL,
  content: Buffer,
  credentials: SignatureV4,
): Failure | undefined {
  const {
    authorization = '',
    'x-amz-date': date = '',
    'x-amz-content-sha256': told = '',
  } = request.headers as Record<string, string>
  const names = /SignedHeaders=([^,]*)/.exec(authorization)?.[1]?.split(';') ?? []
  const added = ['x-amz-date', 'x-amz-content-sha256']
  const headers = Object.fromEntries(
    names.filter((name) => !added.includes(name)).map((name) => [name, String(request.headers[name])]),
  )
  const now = Date.parse(date.replace(/^(....)(..)(..)T(..)(..)(..)Z$/, '$1-$2-$3T$4:$5:$6Z'))
  const expected = sign(credentials, {
    method: request.method ?? '',
    path: url.pathname,
    query: Object.fromEntries(url.searchParams),
    headers,
    contentSha256: told,
    now,
  })
  if (expected['Authorization'] !== authorization) return { status: 403, code: 'SignatureDoesNotMatch' }
  if (!names.includes('host') || Math.abs(now - Date.now()) > 900_000)
    return { status: 403, code: 'RequestTimeTooSkewed' }
  const actual = createHash('sha256').update(content).digest('hex')
  return actual === told ? undefined : { status: 400, code: 'XAmzContentSHA256Mismatch' }
}

function refuse(response: ServerResponse, { status, code }: Failure): void {
  response.writeHead(status, { 'Content-Type': 'application/xml' })
  response.end(`<?xml version="1.0"?><Error><Code>${code}</Code></Error>`)
}
