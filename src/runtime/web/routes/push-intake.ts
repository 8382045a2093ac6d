import type { FastifyInstance, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Clock } from '../../../core/clock.ts'
import { isId, newId } from '../../../core/ids.ts'
import type { Acceptance } from '../../../domain/push/acceptance.ts'
import type { Pushes } from '../../../domain/push/delivery-log.ts'
import { PUSH_NOT_FOUND } from '../../../domain/push/errors.ts'
import { mostInBatch, parsePushes } from '../../../domain/push/parse-push.ts'
import { type AcceptedPush, maxConfirmMs, maxTtlMs, type NewPush } from '../../../domain/push/push.ts'
import { OVERLOADED } from '../errors.ts'
import type { Idempotency } from '../idempotency.ts'
import { idempotencyKeyOf } from '../idempotency-key.ts'
import { problems } from '../open-api.ts'

export interface PushIntakeOptions {
  clock: Clock
  acceptance: Acceptance
  pushes: Pushes
  idempotency: Idempotency
  /** CONFIRM_MS; undefined is adaptive. */
  confirmMs: number | undefined
}

/** Pushes that may wait for their commit in one process. */
const mostPending = 20_000
const json = 'application/json; charset=utf-8'

const PushInput = Type.Object({
  to: Type.Union([
    Type.Object({ device: Type.String() }),
    Type.Object({ user: Type.String() }),
    Type.Object({ group: Type.String() }),
  ]),
  payload: Type.Optional(Type.Any({ description: 'At most 1 MiB as JSON' })),
  priority: Type.Optional(
    Type.Enum(['priority', 'normal'], {
      description:
        '`normal` is only for those who listen; `priority`, the default, arms the confirmation timeout',
    }),
  ),
  topic: Type.Optional(
    Type.String({ description: 'Replaces what is open for the device under the same topic' }),
  ),
  ttlMs: Type.Optional(Type.Integer({ minimum: 1, maximum: maxTtlMs, description: 'A day unless said' })),
  confirmMs: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: maxConfirmMs,
      description:
        'Until the cloud provider gets it; 0 is at once; twice the reconnect time of the device unless said',
    }),
  ),
  escalateMs: Type.Optional(
    Type.Integer({
      minimum: 1_000,
      maximum: maxConfirmMs,
      description: 'From a cloud push that is not confirmed to the next transport; never unless said',
    }),
  ),
})
const Accepted = Type.Object({
  id: Type.String({ format: 'uuid' }),
  devices: Type.Integer(),
  payloadCopies: Type.Optional(
    Type.Literal(1, { description: 'Its large payload has a single copy for now; the other one follows' }),
  ),
})

/** `POST /v1/pushes`, and what became of them. */
export function addPushIntake(server: FastifyInstance, options: PushIntakeOptions): void {
  server.post(
    '/v1/pushes',
    {
      config: { roles: ['producer'], intake: true },
      schema: {
        tags: ['push'],
        summary: 'Takes in a push, or up to 1,000 at once',
        description:
          'When 202 is answered they are committed. Of an array nothing is taken unless all of it is valid. An ' +
          '`Idempotency-Key` works as for jobs.',
        security: [{ key: [] }],
        body: Type.Union([PushInput, Type.Array(PushInput, { minItems: 1, maxItems: mostInBatch })]),
        response: {
          202: Type.Union([Accepted, Type.Object({ pushes: Type.Array(Accepted) })]),
          ...problems({
            400: 'It does not fit; `errors` lists every fault',
            404: 'A device is not registered',
            409: 'The Idempotency-Key was used for another request',
            413: 'The request is larger than 1 MiB',
            503: 'It cannot be taken now; `Retry-After` says when it can be again',
          }),
        },
      },
    },
    async (request, reply) => {
      const { acceptance, clock, confirmMs } = options
      if (acceptance.pending > mostPending) {
        throw OVERLOADED(
          { reason: `${acceptance.pending} pushes wait to be written` },
          { retryAfterMs: 1_000 },
        )
      }
      const pushes = parsePushes(request.body, { newId: () => newId(clock.now()), confirmMs })
      if (request.headers['idempotency-key'] === undefined) {
        const accepted = await acceptance.accept(pushes)
        return reply.code(202).type(json).send(textOf(request, accepted))
      }
      const answer = await takeOnce(options, request, pushes)
      if (answer.replayed) reply.header('idempotency-replayed', 'true')
      return reply.code(202).type(json).send(answer.text)
    },
  )
  addReading(server, options)
}

async function takeOnce(options: PushIntakeOptions, request: FastifyRequest, pushes: NewPush[]) {
  let follow = (): void => undefined
  const claiming = options.acceptance.claim(pushes)
  // A repetition gets its answer even while the stores take nothing: a refusal counts only where it is asked for.
  await claiming.catch(() => undefined)
  const answer = await options.idempotency.once(
    {
      owner: request.principal?.owner ?? '',
      key: idempotencyKeyOf(request),
      route: 'POST /v1/pushes',
      body: request.rawBody ?? Buffer.alloc(0),
    },
    async (client) => {
      const taken = await options.acceptance.acceptIn(client, await claiming)
      follow = taken.follow
      return { status: 202, text: textOf(request, taken.accepted) }
    },
  )
  follow()
  return answer
}

const textOf = (request: FastifyRequest, accepted: AcceptedPush[]): string =>
  JSON.stringify(Array.isArray(request.body) ? { pushes: accepted } : accepted[0])

type ById = { Params: { id: string } }

function addReading(server: FastifyInstance, { pushes }: PushIntakeOptions): void {
  const params = Type.Object({ id: Type.String({ format: 'uuid' }) })
  server.get<ById>(
    '/v1/pushes/:id',
    {
      config: { roles: ['producer', 'viewer'] },
      schema: {
        tags: ['push'],
        summary: 'The delivery log of a push',
        description:
          'For each device its state and its milestones, in the order of time; at most 1,000 devices.',
        security: [{ key: [] }],
        params,
        response: { 200: Type.Any(), ...problems({ 404: 'There is no such push' }) },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const log = isId(id) ? await pushes.show(id) : undefined
      if (!log) throw PUSH_NOT_FOUND({ id: id.slice(0, 64) })
      return reply.header('cache-control', 'no-store').send(log)
    },
  )
  server.delete<ById>(
    '/v1/pushes/:id',
    {
      config: { roles: ['producer'], bodyOptional: true },
      schema: {
        tags: ['push'],
        summary: 'Withdraws what no provider has been given yet',
        security: [{ key: [] }],
        params,
        response: {
          200: Type.Object({ id: Type.String(), devices: Type.Integer(), withdrawn: Type.Integer() }),
          ...problems({ 404: 'There is no such push' }),
        },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const found = isId(id) ? await pushes.withdraw(id) : undefined
      if (!found) throw PUSH_NOT_FOUND({ id: id.slice(0, 64) })
      return reply.send({ id, ...found })
    },
  )
}
