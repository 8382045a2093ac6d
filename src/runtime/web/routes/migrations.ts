import type { FastifyInstance, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Fault } from '../../../core/errors.ts'
import { isId } from '../../../core/ids.ts'
import type { Action, StartOptions, StateAdministration } from '../../../domain/state/administration.ts'
import { MIGRATION_NOT_FOUND } from '../../../domain/state/errors.ts'
import type { AuditLog } from '../../../platform/access.ts'
import { INPUT_INVALID } from '../../../platform/queues/errors.ts'
import { problems } from '../open-api.ts'

export interface MigrationsOptions {
  states: StateAdministration
  /** Has workers work on it: as many as said, or none when enough are. */
  enqueue(id: string, workers: number): Promise<void>
  audit: AuditLog
}

const actions: readonly Action[] = ['pause', 'resume', 'cut-over', 'roll-back', 'cancel', 'finish']
const mostWorkers = 64

const NewMigration = Type.Object({
  from: Type.String({ description: '`file:/dir/`, `zpush+postgres://…` or `postgres://…`' }),
  to: Type.String(),
  dryRun: Type.Optional(Type.Boolean({ description: 'Only look, and write nothing anywhere' })),
  workers: Type.Optional(Type.Integer({ minimum: 1, maximum: mostWorkers, default: 1 })),
  statesPerSecond: Type.Optional(Type.Integer({ minimum: 1 })),
  bytesPerSecond: Type.Optional(Type.Integer({ minimum: 1 })),
})

const Shown = Type.Object(
  { id: Type.String({ format: 'uuid' }), phase: Type.String(), paused: Type.Boolean() },
  {
    additionalProperties: true,
    description:
      'Phase, counts, bytes, rate, quarantine, verification, gate and storm guard. Passwords of URLs are not shown.',
  },
)

/** `POST /v1/migrations`, `GET /v1/migrations` and `/v1/migrations/:id`, and what an operator may ask of one. */
export function addMigrations(server: FastifyInstance, options: MigrationsOptions): void {
  addStart(server, options)
  addLooks(server, options)
  addActions(server, options)
}

function addStart(server: FastifyInstance, { states, enqueue, audit }: MigrationsOptions): void {
  server.post(
    '/v1/migrations',
    {
      config: { roles: [] },
      schema: {
        tags: ['state'],
        summary: 'Begins a migration of device states, or a dry run of one',
        description:
          'Both stores are looked at first; what cannot work is refused before anything is written. The same two ' +
          'stores again answer with the migration that is under way. It copies until it is `ready`.',
        security: [{ key: [] }],
        body: NewMigration,
        response: {
          202: Shown,
          ...problems({ 400: 'It does not fit', 409: 'One of the stores cannot be taken' }),
        },
      },
    },
    async (request, reply) => {
      const { from, to, workers, start } = readBody(request.body)
      const { id } = await states.start(from, to, start)
      await enqueue(id, workers)
      await record(audit, request, 'migration.start', id)
      return reply
        .code(202)
        .header('location', `/v1/migrations/${id}`)
        .send(await states.view(id))
    },
  )
}

function addLooks(server: FastifyInstance, { states }: MigrationsOptions): void {
  server.get(
    '/v1/migrations',
    {
      config: { roles: ['viewer'] },
      schema: {
        tags: ['state'],
        summary: 'Lists migrations, the newest first',
        security: [{ key: [] }],
        response: { 200: Type.Object({ migrations: Type.Array(Shown) }), ...problems() },
      },
    },
    async (_request, reply) =>
      reply.header('cache-control', 'no-store').send({ migrations: await states.list() }),
  )
  server.get<{ Params: { id: string }; Querystring: { quarantine?: string } }>(
    '/v1/migrations/:id',
    {
      config: { roles: ['viewer'] },
      schema: {
        tags: ['state'],
        summary: 'Shows a migration',
        description: 'With up to 1,000 lines of its quarantine; `?quarantine=N` brings N.',
        security: [{ key: [] }],
        params: Type.Object({ id: Type.String() }),
        response: { 200: Shown, ...problems({ 404: 'There is no such migration' }) },
      },
    },
    async (request, reply) => {
      const lines = Number(request.query.quarantine ?? 1_000)
      const view = await states.view(
        known(request.params.id),
        Number.isInteger(lines) && lines >= 0 ? lines : 1_000,
      )
      return reply.header('cache-control', 'no-store').send(view)
    },
  )
}

function addActions(server: FastifyInstance, { states, enqueue, audit }: MigrationsOptions): void {
  for (const action of actions) {
    server.post<{ Params: { id: string } }>(
      `/v1/migrations/:id/${action}`,
      {
        config: { roles: [], bodyOptional: true },
        schema: {
          tags: ['state'],
          summary: summaries[action],
          security: [{ key: [] }],
          params: Type.Object({ id: Type.String() }),
          response: {
            202: Shown,
            ...problems({ 404: 'There is no such migration', 409: 'Its phase does not allow it' }),
          },
        },
      },
      async (request, reply) => {
        const id = known(request.params.id)
        const view = await states.request(id, action)
        // Nobody may be at work on it any more: what is asked for would never happen.
        if (action !== 'pause') await enqueue(id, 1)
        await record(audit, request, `migration.${action}`, id)
        return reply.code(202).send(view)
      },
    )
  }
}

const summaries: Record<Action, string> = {
  pause: 'Lets a migration stand still after the devices that are under way',
  resume: 'Goes on; after a storm: keeps the target and lets the phones in by portions',
  'cut-over': 'Closes the source, copies and verifies the rest, and opens the target',
  'roll-back': 'Brings what was written since back to the source, and opens that',
  cancel: 'Ends a migration that was not cut over; the source was never touched',
  finish: 'Ends the watch after a cut-over; a roll-back stays possible',
}

const record = (audit: AuditLog, request: FastifyRequest, action: string, id: string): Promise<void> =>
  audit.record({
    actor: request.principal?.name ?? 'unknown',
    action,
    subject: id,
    details: { requestId: request.id, key: request.principal?.owner },
  })

/** @throws MIGRATION_NOT_FOUND: Postgres would refuse anything else with an error about its types */
function known(id: string): string {
  if (!isId(id)) throw MIGRATION_NOT_FOUND({ id: id.slice(0, 100) })
  return id
}

interface Body {
  from: string
  to: string
  workers: number
  start: StartOptions
}

/** @throws INPUT_INVALID with every fault */
function readBody(body: unknown): Body {
  const given = typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : {}
  const faults: Fault[] = []
  const text = (name: 'from' | 'to'): string => {
    const value = given[name]
    if (typeof value === 'string' && value.length > 0 && value.length <= 4_000) return value
    faults.push({ path: `/${name}`, message: 'must be the URL of a store' })
    return ''
  }
  const whole = (
    name: 'workers' | 'statesPerSecond' | 'bytesPerSecond',
    most: number,
  ): number | undefined => {
    const value = given[name]
    if (value === undefined) return undefined
    if (Number.isInteger(value) && Number(value) >= 1 && Number(value) <= most) return Number(value)
    faults.push({ path: `/${name}`, message: `must be a whole number from 1 to ${most}` })
    return undefined
  }
  const [from, to] = [text('from'), text('to')]
  const workers = whole('workers', mostWorkers) ?? 1
  const statesPerSecond = whole('statesPerSecond', 1_000_000_000)
  const bytesPerSecond = whole('bytesPerSecond', Number.MAX_SAFE_INTEGER)
  const { dryRun = false } = given
  if (typeof dryRun !== 'boolean') faults.push({ path: '/dryRun', message: 'must be true or false' })
  if (faults.length > 0) {
    throw INPUT_INVALID(
      { summary: faults.map((fault) => `${fault.path} ${fault.message}`).join('; ') },
      { faults },
    )
  }
  const start: StartOptions = {
    dryRun: dryRun === true,
    ...(statesPerSecond === undefined ? {} : { statesPerSecond }),
    ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
  }
  return { from, to, workers, start }
}
