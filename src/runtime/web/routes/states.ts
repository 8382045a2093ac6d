import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { toIso } from '../../../core/clock.ts'
import { sha256 } from '../../../core/digest.ts'
import type { Fault } from '../../../core/errors.ts'
import { STATE_NOT_FOUND } from '../../../domain/state/errors.ts'
import type { StateGate } from '../../../domain/state/gate.ts'
import type { MissCounter } from '../../../domain/state/migration/storm-guard.ts'
import { keyPath, parseType, type StateKey } from '../../../domain/state/state-key.ts'
import type { StateStore } from '../../../domain/state/store.ts'
import { INPUT_INVALID } from '../../../platform/queues/errors.ts'
import { readBytes } from '../json-reader.ts'
import { problems } from '../open-api.ts'

export interface StatesOptions {
  store: StateStore
  gate: StateGate
  /** Counts devices that ask for what is not there. */
  misses: MissCounter
}

/** The largest state; Z-Push's own are some megabytes. */
const stateBytes = 32 * 1024 * 1024
const stateMs = 60_000

interface StatePath {
  device: string
  type: string
  key: string
  counter: string
}

type ByPath = { Params: StatePath; Querystring: { clean?: string; older?: string } }

const PathSchema = Type.Object({
  device: Type.String({ description: 'Letters, digits, `.`, `_` and `-`, at most 50' }),
  type: Type.String({ description: '`def` (or `-`), `devicedata`, `fd`, `fs`, `hc` or `bs`' }),
  key: Type.String({ description: '`-` for none' }),
  counter: Type.String({ description: '`0` for none' }),
})

const StateDocument = Type.Object({
  type: Type.String(),
  key: Type.String(),
  counter: Type.Integer(),
  size: Type.Integer({ description: 'Bytes' }),
  updatedAt: Type.String({ format: 'date-time' }),
})

const described = problems({
  400: 'The path does not fit',
  404: 'There is no such state',
  412: 'If-Match named another state',
  503: 'The store is closed for a moment',
})

/** `GET /v1/devices/:device/states` and its states. A scope of its own: here any media type is bytes. */
export async function addStates(server: FastifyInstance, options: StatesOptions): Promise<void> {
  addList(server, options)
  await server.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_request, message, done) =>
      readBytes(message, { bytes: stateBytes, ms: stateMs }, done),
    )
    addRead(scope, options)
    addWrite(scope, options)
    addRemove(scope, options)
  })
}

function addList(server: FastifyInstance, { store, gate }: StatesOptions): void {
  server.get<{ Params: { device: string } }>(
    '/v1/devices/:device/states',
    {
      config: { roles: ['producer', 'viewer'] },
      schema: {
        tags: ['state'],
        summary: 'Lists the states of a device',
        security: [{ key: [] }],
        params: Type.Object({ device: Type.String() }),
        response: {
          200: Type.Object({ device: Type.String(), states: Type.Array(StateDocument) }),
          ...described,
        },
      },
    },
    async (request, reply) => {
      const device = readDevice(request.params.device)
      await gate.assertOpen(device)
      const states = (await store.list(device)).map(({ key, size, updatedAtMicros }) => ({
        type: key.type || 'def',
        key: key.uuid || '-',
        counter: key.counter,
        size,
        updatedAt: toIso(updatedAtMicros / 1_000),
      }))
      return reply.header('cache-control', 'no-store').send({ device, states })
    },
  )
}

const path = '/v1/devices/:device/states/:type/:key/:counter'

function addRead(scope: FastifyInstance, { store, gate, misses }: StatesOptions): void {
  scope.get<ByPath>(
    path,
    {
      config: { roles: ['producer', 'viewer'] },
      schema: {
        tags: ['state'],
        summary: 'Reads a state',
        description:
          'The bytes as they were written; the ETag is their sha256. With `?clean=1` the older counters of the key ' +
          'are removed, as Z-Push does it, but only if the state is there.',
        security: [{ key: [] }],
        params: PathSchema,
        response: { 200: { description: 'application/octet-stream' }, ...described },
      },
    },
    async (request, reply) => {
      const { device, key } = readPath(request.params)
      await gate.assertOpen(device)
      const state = await store.get(device, key, { clean: request.query.clean === '1' })
      if (!state) {
        misses.note(device, key)
        throw STATE_NOT_FOUND({ device, key: keyPath(key) })
      }
      const tag = `"${sha256(state.bytes)}"`
      reply.headers({ etag: tag, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
      reply.header('last-modified', new Date(state.updatedAtMicros / 1_000).toUTCString())
      if (request.headers['if-none-match'] === tag) return reply.code(304).send()
      return reply.type('application/octet-stream').send(state.bytes)
    },
  )
}

function addWrite(scope: FastifyInstance, { store, gate }: StatesOptions): void {
  scope.put<ByPath>(
    path,
    {
      config: { roles: ['producer'], intake: true },
      bodyLimit: stateBytes,
      schema: {
        tags: ['state'],
        summary: 'Writes a state',
        description:
          'The body, of any media type, up to 32 MiB. With `If-Match` only over the state that it names.',
        security: [{ key: [] }],
        params: PathSchema,
        response: { 204: { description: 'Written; the ETag is its sha256' }, ...described },
      },
    },
    async (request, reply) => {
      const { device, key } = readPath(request.params)
      await gate.assertOpen(device)
      const bytes = (request.body as Buffer | undefined) ?? Buffer.alloc(0)
      await store.set(device, key, bytes, ifMatchOf(request))
      return reply
        .code(204)
        .header('etag', `"${sha256(bytes)}"`)
        .send()
    },
  )
}

function addRemove(scope: FastifyInstance, { store, gate }: StatesOptions): void {
  scope.delete<ByPath>(
    path,
    {
      config: { roles: ['producer'] },
      schema: {
        tags: ['state'],
        summary: 'Removes a state',
        description: 'With `?older=1` the counters below it instead, whether it is there or not.',
        security: [{ key: [] }],
        params: PathSchema,
        response: {
          200: Type.Object({ removed: Type.Integer() }),
          204: { description: 'Removed' },
          ...described,
        },
      },
    },
    async (request, reply) => answerRemove({ store, gate }, request, reply),
  )
}

async function answerRemove(
  { store, gate }: Pick<StatesOptions, 'store' | 'gate'>,
  request: FastifyRequest<ByPath>,
  reply: FastifyReply,
) {
  const { device, key } = readPath(request.params)
  await gate.assertOpen(device)
  const older = request.query.older === '1'
  const removed = await store.clean(device, key, { only: !older, ...ifMatchOf(request) })
  if (older) return reply.send({ removed })
  if (removed === 0) throw STATE_NOT_FOUND({ device, key: keyPath(key) })
  return reply.code(204).send()
}

const ifMatchOf = (request: FastifyRequest): { ifMatch?: string } => {
  const header = request.headers['if-match']
  if (header === undefined) return {}
  return { ifMatch: header.trim().replace(/^"(.*)"$/, '$1') }
}

/** @throws INPUT_INVALID */
function readDevice(device: string): string {
  const faults = isDevice(device)
    ? []
    : [{ path: '/device', message: 'must be 1 to 50 of A-Z a-z 0-9 . _ -' }]
  assertNone(faults)
  return device
}

const isDevice = (text: string): boolean => /^[A-Za-z0-9._-]{1,50}$/.test(text)

/** @throws INPUT_INVALID with every fault of the path */
function readPath(params: StatePath): { device: string; key: StateKey } {
  const type = parseType(params.type)
  const uuid = params.key === '-' ? '' : params.key
  const counter = /^\d{1,15}$/.test(params.counter) ? Number(params.counter) : undefined
  const faults: Fault[] = []
  if (!isDevice(params.device))
    faults.push({ path: '/device', message: 'must be 1 to 50 of A-Z a-z 0-9 . _ -' })
  if (type === undefined) faults.push({ path: '/type', message: 'must be def, devicedata, fd, fs, hc or bs' })
  if (!/^[A-Za-z0-9._-]{0,50}$/.test(uuid))
    faults.push({ path: '/key', message: 'must be at most 50 of A-Z a-z 0-9 . _ -' })
  if (counter === undefined) faults.push({ path: '/counter', message: 'must be a whole number from 0' })
  assertNone(faults)
  return { device: params.device, key: { type: type ?? '', uuid, counter: counter ?? 0 } }
}

function assertNone(faults: Fault[]): void {
  if (faults.length === 0) return
  throw INPUT_INVALID(
    { summary: faults.map((fault) => `${fault.path} ${fault.message}`).join('; ') },
    { faults },
  )
}
