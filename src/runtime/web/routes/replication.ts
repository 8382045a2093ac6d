import type { Readable } from 'node:stream'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { type TSchema, Type } from 'typebox'
import type { Receiver } from '../../../domain/sync/receiver.ts'
import {
  ApplyAnswer,
  ApplyRequest,
  BucketAnswer,
  BucketRequest,
  CandidatesAnswer,
  CandidatesRequest,
  DigestAnswer,
  DigestRequest,
  HelloAnswer,
  HelloRequest,
  PartsAnswer,
  PartsRequest,
  PlanAnswer,
  PlanRequest,
  RereadAnswer,
  RereadRequest,
  type Sender,
} from '../../../domain/sync/wire.ts'
import { INPUT_INVALID } from '../../../platform/queues/errors.ts'
import { readJson } from '../json-body.ts'
import { readBytes } from '../json-reader.ts'
import { problems } from '../open-api.ts'

/** Of one request; a leader keeps to 8 MiB, unless one object alone is larger. */
const requestBytes = 64 * 1024 * 1024
const requestMs = 60_000

interface Call {
  path: string
  summary: string
  body: TSchema
  answer: TSchema
  work(body: unknown): Promise<unknown>
}

/** What the leading site asks of this one, `/v1/replication/*`. A scope of its own, since its bodies may be large. */
export async function addReplication(server: FastifyInstance, receiver: Receiver): Promise<void> {
  await server.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('application/json', (_request, message, done) =>
      readBytes(message, { bytes: requestBytes, ms: requestMs }, (error, bytes) => {
        if (error || !bytes) return done(error)
        let value: unknown
        try {
          value = readJson(bytes)
        } catch (fault) {
          return done(fault as Error)
        }
        done(null, value)
      }),
    )
    for (const call of callsOf(receiver)) addCall(scope, call)
  })
  await server.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_request, message, done) => done(null, message))
    addUpload(scope, receiver)
  })
}

const callsOf = (receiver: Receiver): Call[] => [
  {
    path: 'hello',
    summary: 'Tells what this site is; with `look: false` it follows the site that asks',
    body: HelloRequest,
    answer: HelloAnswer,
    work: receiver.hello,
  },
  {
    path: 'plan',
    summary: 'Says of each object whether it is here, is to be sent, or was changed by somebody else',
    body: PlanRequest,
    answer: PlanAnswer,
    work: receiver.plan,
  },
  {
    path: 'apply',
    summary: 'Writes objects at the cursor of a shard, or single ones again',
    body: ApplyRequest,
    answer: ApplyAnswer,
    work: receiver.apply,
  },
  {
    path: 'parts',
    summary: 'Keeps parts of an object that is too large for one request until it is applied',
    body: PartsRequest,
    answer: PartsAnswer,
    work: receiver.parts,
  },
  {
    path: 'digest',
    summary: 'Compares the digests of a shard at a position',
    body: DigestRequest,
    answer: DigestAnswer,
    work: receiver.digest,
  },
  {
    path: 'bucket',
    summary: 'Lists the objects of a bucket with their hashes',
    body: BucketRequest,
    answer: BucketAnswer,
    work: receiver.bucket,
  },
  {
    path: 'reread',
    summary: 'Reads the next objects of a type from their rows and compares them with the change log',
    body: RereadRequest,
    answer: RereadAnswer,
    work: receiver.reread,
  },
  {
    path: 'candidates',
    summary: 'Judges what a site that led before wrote after the fail-over',
    body: CandidatesRequest,
    answer: CandidatesAnswer,
    work: receiver.candidates,
  },
]

const refusals = problems({
  400: 'It does not fit',
  409: 'The sender may not: another lineage, a lower epoch, another cursor, or this site leads',
})

function addCall(scope: FastifyInstance, { path, summary, body, answer, work }: Call): void {
  scope.post(
    `/v1/replication/${path}`,
    {
      config: { roles: [] },
      bodyLimit: requestBytes,
      schema: {
        tags: ['sync'],
        summary,
        security: [{ key: [] }],
        body,
        response: { 200: answer, ...refusals },
      },
    },
    async (request, reply) => reply.header('cache-control', 'no-store').send(await work(request.body)),
  )
}

function addUpload(scope: FastifyInstance, receiver: Receiver): void {
  scope.put<{ Params: { id: string } }>(
    '/v1/replication/bodies/:id',
    {
      config: { roles: [] },
      bodyLimit: Number.MAX_SAFE_INTEGER,
      schema: {
        tags: ['sync'],
        summary: 'Stores the bytes of a body before its object is sent',
        description: 'With `X-Baton-Protocol`, `X-Baton-Lineage`, `X-Baton-Epoch` and `X-Baton-Size`.',
        security: [{ key: [] }],
        params: Type.Object({ id: Type.String({ pattern: '^[0-9a-f]{64}$' }) }),
        response: { 200: Type.Object({ id: Type.String() }), ...refusals },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const upload = { id, size: whole(request, 'x-baton-size'), bytes: request.body as Readable }
      await receiver.receive(senderOf(request), upload)
      return reply.send({ id })
    },
  )
}

const senderOf = (request: FastifyRequest): Sender => ({
  protocol: whole(request, 'x-baton-protocol'),
  lineage: String(request.headers['x-baton-lineage'] ?? ''),
  epoch: whole(request, 'x-baton-epoch'),
})

/** @throws INPUT_INVALID */
function whole(request: FastifyRequest, header: string): number {
  const text = request.headers[header]
  if (typeof text === 'string' && /^\d{1,15}$/.test(text)) return Number(text)
  const faults = [{ path: `/${header}`, message: 'must be a whole number' }]
  throw INPUT_INVALID({ summary: `the header ${header} must be a whole number` }, { faults })
}
