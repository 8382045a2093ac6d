import type { FastifyInstance, FastifyRequest } from 'fastify'
import { type TSchema, Type } from 'typebox'
import type { Policies } from '../../../domain/sync/replica-rows.ts'
import type { Replicas } from '../../../domain/sync/replicas.ts'
import { createReader } from '../../../domain/sync/wire.ts'
import type { AuditLog } from '../../../platform/access.ts'
import { INPUT_INVALID } from '../../../platform/queues/errors.ts'
import { problems } from '../open-api.ts'

export interface ReplicasOptions {
  replicas: Replicas
  audit: AuditLog
}

const Policy = Type.Enum(['report', 'replace', 'keep'])
const strict = { additionalProperties: false }
const NewReplica = Type.Object(
  {
    url: Type.String({ minLength: 1, maxLength: 2_000, description: '`https://host` of its web tier' }),
    key: Type.String({
      minLength: 16,
      maxLength: 500,
      description: 'An API key of that site, role operator',
    }),
    policy: Type.Optional(
      Type.Object(
        Object.fromEntries(
          ['*', 'states', 'device', 'push', 'job', 'body'].map((type) => [type, Type.Optional(Policy)]),
        ),
        {
          ...strict,
          description: 'What is done about objects that were changed there past the fence; `*` for all types',
        },
      ),
    ),
  },
  strict,
)
const Approval = Type.Object(
  {
    plan: Type.Optional(Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' })),
    mismatches: Type.Optional(Type.Enum(['replace', 'keep'])),
  },
  strict,
)

const Shown = Type.Object(
  { name: Type.String(), url: Type.String(), paused: Type.Boolean() },
  {
    additionalProperties: true,
    description: 'Lag, quarantine, fuses, error, verification. The key is not shown.',
  },
)
const View = Type.Object(
  { site: Type.Object({}, { additionalProperties: true }), replicas: Type.Array(Shown) },
  { description: 'Role and epoch of this site, what is pending, and its replicas' },
)

type ByName = { Params: { name: string } }

/** `PUT`, `DELETE /v1/replicas/:name`, `GET /v1/replicas`, and what an operator may ask of one. */
export function addReplicas(server: FastifyInstance, options: ReplicasOptions): void {
  addLook(server, options)
  addPut(server, options)
  addRemove(server, options)
  addActions(server, options)
  addApprove(server, options)
}

function addLook(server: FastifyInstance, { replicas }: ReplicasOptions): void {
  server.get(
    '/v1/replicas',
    {
      config: { roles: ['viewer'] },
      schema: {
        tags: ['sync'],
        summary: 'Shows what this site is, and how its replicas are',
        security: [{ key: [] }],
        response: { 200: View, ...problems() },
      },
    },
    async (_request, reply) => reply.header('cache-control', 'no-store').send(await replicas.list()),
  )
}

function addPut(server: FastifyInstance, { replicas, audit }: ReplicasOptions): void {
  const read = createReader(NewReplica)
  server.put<ByName>(
    '/v1/replicas/:name',
    {
      config: { roles: [] },
      schema: schemaOf({
        summary: 'Makes another site a replica of this one, or changes its url, key and policy',
        description:
          'Both must have the same `BATON_SECRET` and release, and the other one no objects of its own.',
        body: NewReplica,
        conflicts: 'It cannot be a replica of this site; the detail says why',
      }),
    },
    async (request, reply) => {
      const { url, key, policy } = read(request.body)
      const name = nameOf(request)
      const view = await replicas.put(name, {
        url: urlOf(url),
        key,
        ...(policy ? { policy: policy as Policies } : {}),
      })
      await record(audit, request, 'replica.put', { url: view.url })
      return reply.code(200).send(view)
    },
  )
}

function addRemove(server: FastifyInstance, { replicas, audit }: ReplicasOptions): void {
  server.delete<ByName>(
    '/v1/replicas/:name',
    {
      config: { roles: [] },
      schema: {
        tags: ['sync'],
        summary: 'Sends nothing more to a replica',
        description: 'It keeps what it has. This site goes on to keep its change log.',
        security: [{ key: [] }],
        params: Type.Object({ name: Type.String() }),
        response: { 204: { description: 'Removed' }, ...problems({ 404: 'There is no such replica' }) },
      },
    },
    async (request, reply) => {
      await replicas.remove(nameOf(request))
      await record(audit, request, 'replica.remove')
      return reply.code(204).send()
    },
  )
}

const actions = {
  pause: 'Sends nothing to a replica until it is resumed',
  resume: 'Goes on, at once',
  verify: 'Asks for a verification of all objects, read anew on both sides',
} as const

function addActions(server: FastifyInstance, { replicas, audit }: ReplicasOptions): void {
  for (const action of ['pause', 'resume', 'verify'] as const) {
    server.post<ByName>(
      `/v1/replicas/:name/${action}`,
      {
        config: { roles: [], bodyOptional: true },
        schema: schemaOf({ summary: actions[action] }),
      },
      async (request, reply) => {
        const view = await replicas[action](nameOf(request))
        await record(audit, request, `replica.${action}`)
        return reply.code(202).send(view)
      },
    )
  }
}

function addApprove(server: FastifyInstance, { replicas, audit }: ReplicasOptions): void {
  const read = createReader(Approval)
  server.post<ByName>(
    '/v1/replicas/:name/approve',
    {
      config: { roles: [] },
      schema: schemaOf({
        summary: 'Lets deletes go that the fuse holds back, or mends mismatches',
        description:
          '`plan`: the id of the plan, within 24 hours. `mismatches`: write what this site has; `keep` leaves what ' +
          'was found there in its trash as a conflict, `replace` as replaced.',
        body: Approval,
        conflicts: 'The plan is too old',
      }),
    },
    async (request, reply) => {
      const { plan, mismatches } = read(request.body)
      const name = nameOf(request)
      if ((plan === undefined) === (mismatches === undefined)) {
        throw INPUT_INVALID({ summary: 'give either `plan` or `mismatches`' })
      }
      const actor = request.principal?.name ?? 'unknown'
      const view = mismatches
        ? await replicas.approveMismatches(name, mismatches)
        : await replicas.approvePlan(name, plan ?? '', actor)
      await record(audit, request, 'replica.approve', { plan, mismatches })
      return reply.code(202).send(view)
    },
  )
}

interface Described {
  summary: string
  description?: string
  body?: TSchema
  conflicts?: string
}

const schemaOf = ({ summary, description, body, conflicts }: Described) => ({
  tags: ['sync'],
  summary,
  ...(description === undefined ? {} : { description }),
  security: [{ key: [] }],
  params: Type.Object({ name: Type.String() }),
  ...(body ? { body } : {}),
  response: {
    [body && !conflicts?.startsWith('The plan') ? 200 : 202]: Shown,
    ...problems({
      400: 'It does not fit',
      404: 'There is no such replica or plan',
      409: conflicts ?? 'Not now',
      502: 'The other site does not answer, or not as a site of Baton',
    }),
  },
})

/** @throws INPUT_INVALID */
function nameOf(request: FastifyRequest<ByName>): string {
  const { name } = request.params
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name)) return name
  throw INPUT_INVALID(
    { summary: 'the name of a replica is 1 to 64 of A-Z a-z 0-9 . _ -' },
    { faults: [{ path: '/name', message: 'must be 1 to 64 of A-Z a-z 0-9 . _ -' }] },
  )
}

/** @throws INPUT_INVALID */
export function urlOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const fault = faultOf(url)
  if (url && fault === undefined) return url.href.replace(/\/+$/, '')
  const message = fault ?? 'must be a URL such as https://baton.example.org'
  throw INPUT_INVALID({ summary: `/url ${message}` }, { faults: [{ path: '/url', message }] })
}

function faultOf(url: URL | undefined): string | undefined {
  if (!url) return 'must be a URL such as https://baton.example.org'
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return 'must begin with https:// or http://'
  if (url.username !== '' || url.password !== '')
    return 'must not hold a user or a password; the key has a place of its own'
  return url.search !== '' || url.hash !== '' ? 'must have no ? and no #' : undefined
}

const record = (
  audit: AuditLog,
  request: FastifyRequest<ByName>,
  action: string,
  details: Record<string, unknown> = {},
): Promise<void> =>
  audit.record({
    actor: request.principal?.name ?? 'unknown',
    action,
    subject: request.params.name,
    details: { ...details, requestId: request.id, key: request.principal?.owner },
  })
