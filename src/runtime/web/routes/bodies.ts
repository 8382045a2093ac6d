import { PassThrough, type Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Bodies, ByteRange, Content, GetOptions } from '../../../domain/bodies/bodies.ts'
import { BODY_RANGE_INVALID, BODY_TOO_LARGE } from '../../../domain/bodies/errors.ts'
import { createCheck } from '../../../platform/queues/faults.ts'
import { assertFits } from '../../../platform/queues/registry.ts'
import { problems } from '../open-api.ts'

const BodyDocument = Type.Object({
  id: Type.String({ description: 'sha256 of the bytes, 64 hex digits' }),
  size: Type.Integer({ description: 'Bytes' }),
  copies: Type.Integer({ description: 'Copies that were durable before this answer' }),
})

/** `PUT /v1/bodies` and `GET /v1/bodies/:id`. A scope of its own: here any media type is bytes. */
export async function addBodies(server: FastifyInstance, bodies: Bodies): Promise<void> {
  await server.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_request, message, done) => done(null, message))
    addUpload(scope, bodies)
    addDownload(scope, bodies)
  })
}

const Query = Type.Object(
  {
    copies: Type.Optional(Type.Enum(['1', '2'], { description: 'Durable before the answer; 2 unless said' })),
  },
  { additionalProperties: false },
)
const bytes = { 'application/octet-stream': { schema: Type.String({ format: 'binary' }) } }

function addUpload(scope: FastifyInstance, bodies: Bodies): void {
  const check = createCheck(Query)
  scope.put<{ Querystring: { copies?: string } }>(
    '/v1/bodies',
    {
      config: { roles: ['producer'], intake: true },
      // The stream counts by itself and stops at its own limit.
      bodyLimit: Number.MAX_SAFE_INTEGER,
      schema: {
        tags: ['bodies'],
        summary: 'Stores a body of up to 1 GiB',
        description:
          'The body of the request, of any media type. Answers when two copies are durable. With `?copies=1` one ' +
          'is enough for now, and the other one follows.',
        security: [{ key: [] }],
        querystring: Query,
        body: { content: bytes },
        response: {
          201: BodyDocument,
          ...problems({ 400: 'It ended too early, or `copies` does not fit', 413: 'It is too large' }),
        },
      },
    },
    async (request, reply) => {
      assertFits(check(request.query))
      const { maxBytes } = bodies
      // To stop in the middle would cut the connection under a client that has not read the answer.
      if (Number(request.headers['content-length']) > maxBytes) throw BODY_TOO_LARGE({ maxBytes })
      const source = (request.body as Readable | undefined) ?? new PassThrough().end()
      const put = await bodies.put(source, {
        signal: goneSignal(reply),
        ...(request.query.copies === '1' ? { minCopies: 1 as const } : {}),
      })
      return reply.code(201).header('location', `/v1/bodies/${put.id}`).send(put)
    },
  )
}

function addDownload(scope: FastifyInstance, bodies: Bodies): void {
  scope.get<{ Params: { id: string } }>(
    '/v1/bodies/:id',
    {
      config: { roles: ['producer', 'viewer'] },
      exposeHeadRoute: false,
      schema: {
        tags: ['bodies'],
        summary: 'Reads a body, or a range of it',
        description: 'Every byte was verified before it is sent. `Range` and `If-None-Match` are honoured.',
        security: [{ key: [] }],
        params: Type.Object({ id: Type.String({ pattern: '^[0-9a-f]{64}$' }) }),
        response: {
          200: { description: 'The whole body', content: bytes },
          206: { description: 'The range that was asked for', content: bytes },
          304: { description: 'The client has it' },
          ...problems({ 404: 'There is no such body', 416: 'The range lies outside of it' }),
        },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      if (isSame(request.headers['if-none-match'], id)) {
        await bodies.stat(id)
        return reply.headers(headersOf(id)).code(304).send()
      }
      const options = getOptions(request, reply)
      const content = await bodies.get(id, options).catch(async (error: unknown) => {
        if (BODY_RANGE_INVALID.is(error))
          reply.header('content-range', `bytes */${(await bodies.stat(id)).size}`)
        throw error
      })
      const part = options.range !== undefined
      return reply
        .headers(headersOf(id))
        .headers(partHeaders(content, part))
        .code(part ? 206 : 200)
        .type('application/octet-stream')
        .send(content.stream)
    },
  )
  scope.head<{ Params: { id: string } }>(
    '/v1/bodies/:id',
    { config: { roles: ['producer', 'viewer'] }, schema: { hide: true } },
    async (request, reply) => {
      const { id, size } = await bodies.check(request.params.id)
      return reply
        .headers({ etag: `"${id}"`, 'accept-ranges': 'bytes', 'content-length': String(size) })
        .type('application/octet-stream')
        .send()
    },
  )
}

const headersOf = (id: string): Record<string, string> => ({
  etag: `"${id}"`,
  // The id is the content, so what a client has never becomes stale; but only who has a key may read it.
  'cache-control': 'private, max-age=31536000, immutable',
  'accept-ranges': 'bytes',
  // Bytes of others must not run as a page of ours.
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; sandbox",
  'content-disposition': 'attachment',
})

const isSame = (header: string | undefined, id: string): boolean =>
  header !== undefined && header.split(',').some((tag) => tag.trim().replace(/^W\//, '') === `"${id}"`)

function getOptions(request: FastifyRequest<{ Params: { id: string } }>, reply: FastifyReply): GetOptions {
  const { range, 'if-range': ifRange } = request.headers
  const wanted = range === undefined ? undefined : readRange(range)
  const fresh = ifRange === undefined || ifRange === `"${request.params.id}"`
  const signal = goneSignal(reply)
  return wanted && fresh ? { signal, range: wanted } : { signal }
}

/** One range of bytes (RFC 9110, 14.1.2). More than one, or another unit, is answered with the whole. */
export function readRange(header: string): ByteRange | undefined {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header.replaceAll(' ', ''))
  if (!match) return undefined
  const [, first = '', last = ''] = match
  if (first === '') return last === '' ? undefined : { suffix: Number(last) }
  if (last === '') return { start: Number(first) }
  return Number(last) < Number(first) ? undefined : { start: Number(first), end: Number(last) + 1 }
}

function partHeaders({ start, end, size }: Content, part: boolean): Record<string, string> {
  return {
    'content-length': String(end - start),
    ...(part ? { 'content-range': `bytes ${start}-${end - 1}/${size}` } : {}),
  }
}

/** Aborts when the client has gone, so that nobody works for it any more. */
function goneSignal(reply: FastifyReply): AbortSignal {
  const gone = new AbortController()
  reply.raw.once('close', () => gone.abort())
  return gone.signal
}
