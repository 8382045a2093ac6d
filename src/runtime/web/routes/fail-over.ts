import type { FastifyInstance, FastifyPluginAsync, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { documentOf, viewDocumentOf } from '../../../domain/sync/fail-over/document.ts'
import type { FailOvers } from '../../../domain/sync/fail-over/fail-overs.ts'
import { promotePath } from '../../../domain/sync/fail-over/other-site.ts'
import { createReader, protocol, shards } from '../../../domain/sync/wire.ts'
import { problems } from '../open-api.ts'

export interface FailOverRoutesOptions {
  failOvers: FailOvers
  /** Reads what the site is at once, so that this process refuses or serves without the next look. */
  refresh(): Promise<unknown>
}

const Wish = Type.Object(
  {
    mode: Type.Enum(['rehearse', 'soft', 'hard']),
    to: Type.String({ minLength: 1, maxLength: 64, description: 'The site that is to open' }),
    confirm: Type.Optional(
      Type.String({ maxLength: 64, description: 'With `hard`: the name of the leader that is given up' }),
    ),
  },
  { additionalProperties: false },
)
const Promotion = Type.Object(
  {
    protocol: Type.Literal(protocol),
    lineage: Type.String({ maxLength: 64 }),
    epoch: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    heads: Type.Array(Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }), {
      minItems: shards,
      maxItems: shards,
    }),
  },
  { additionalProperties: false },
)

const Shown = Type.Object(
  {
    id: Type.String({ format: 'uuid' }),
    mode: Type.String(),
    to: Type.String(),
    phase: Type.String({
      description: 'preflight, draining, closed, flushing, promoting, demoting; done, refused, aborted',
    }),
    error: Type.Union([Type.Object({ code: Type.String(), message: Type.String() }), Type.Null()]),
    log: Type.Array(
      Type.Object({ phase: Type.String(), at: Type.String(), ms: Type.Optional(Type.Number()) }),
    ),
    refusedMs: Type.Optional(Type.Number({ description: 'How long writes were refused here' })),
  },
  { additionalProperties: true },
)
const View = Type.Object({
  site: Type.Object({
    name: Type.String(),
    role: Type.String({ description: 'alone, leader, replica' }),
    intake: Type.String({ description: 'open, draining, closed' }),
    epoch: Type.Integer(),
    lineage: Type.Union([Type.String(), Type.Null()]),
    leader: Type.Union([Type.String(), Type.Null()]),
  }),
  failOver: Type.Union([Shown, Type.Null()]),
  history: Type.Array(Shown),
})

const readWish = createReader(Wish)
const readPromotion = createReader(Promotion)

/** `/v1/fail-over`: what operators ask for; and what the site that closes asks of the one that opens. */
export const createFailOverRoutes =
  (options: FailOverRoutesOptions): FastifyPluginAsync =>
  async (server) => {
    addLooks(server, options)
    addBeginning(server, options)
    addAbort(server, options)
    addPromotion(server, options)
  }

function addLooks(server: FastifyInstance, { failOvers }: FailOverRoutesOptions): void {
  server.get(
    '/v1/fail-over',
    {
      config: { roles: ['viewer'] },
      schema: {
        tags: ['sync'],
        summary: 'What this site is, and its fail-overs: the one under way or the last, and those before',
        security: [{ key: [] }],
        response: { 200: View, ...problems() },
      },
    },
    async (_request, reply) =>
      reply.header('cache-control', 'no-store').send(viewDocumentOf(await failOvers.view())),
  )
}

function addBeginning(server: FastifyInstance, { failOvers, refresh }: FailOverRoutesOptions): void {
  server.post(
    '/v1/fail-over',
    {
      config: { roles: [] },
      schema: {
        tags: ['sync'],
        summary: 'Begins a fail-over, or the rehearsal of one',
        description:
          '`rehearse` and `soft` are asked of the site that leads: a worker brings them on, and `GET` shows how far. ' +
          '`hard` is asked of the replica when the leader is gone: it opens at once, and what it did not have yet may be lost.',
        security: [{ key: [] }],
        body: Wish,
        response: {
          202: Shown,
          ...problems({
            400: 'It does not fit, or a hard one is not confirmed',
            404: 'There is no such replica',
            409: 'One is under way, or this is not the site to ask',
          }),
        },
      },
    },
    async (request, reply) => {
      const begun = await failOvers.begin({ ...readWish(request.body), ...whoOf(request) })
      await refresh()
      return reply.code(202).header('location', '/v1/fail-over').send(documentOf(begun))
    },
  )
}

function addAbort(server: FastifyInstance, { failOvers, refresh }: FailOverRoutesOptions): void {
  server.post(
    '/v1/fail-over/abort',
    {
      config: { roles: [], bodyOptional: true },
      schema: {
        tags: ['sync'],
        summary: 'Gives up the fail-over that is under way: the site takes writes again',
        description:
          'Until the other site was asked to open. From then on it is too late: 409 `FAIL_OVER_COMMITTED`.',
        security: [{ key: [] }],
        response: { 202: Shown, ...problems({ 404: 'None is under way', 409: 'It is too late' }) },
      },
    },
    async (request, reply) => {
      const aborted = await failOvers.abort(whoOf(request))
      await refresh()
      return reply.code(202).send(documentOf(aborted))
    },
  )
}

function addPromotion(server: FastifyInstance, { failOvers, refresh }: FailOverRoutesOptions): void {
  server.post(promotePath, { config: { roles: [] }, schema: { hide: true } }, async (request, reply) => {
    const { protocol: _protocol, ...to } = readPromotion(request.body)
    const { role, intake, epoch } = await failOvers.promote(to, whoOf(request))
    await refresh()
    return reply.send({ role, intake, epoch })
  })
}

const whoOf = (request: FastifyRequest): { actor: string; details: Record<string, unknown> } => ({
  actor: request.principal?.name ?? 'unknown',
  details: { requestId: request.id, key: request.principal?.owner },
})
