import type { FastifyInstance, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Devices } from '../../../domain/push/devices.ts'
import { DEVICE_NOT_FOUND } from '../../../domain/push/errors.ts'
import { assertNames, parseRegistration } from '../../../domain/push/parse-registration.ts'
import { problems } from '../open-api.ts'

export interface PushDeviceRoutesOptions {
  devices: Devices
  allowPrivate: boolean
}

type ByDevice = { Params: { device: string } }
type ByGroup = { Params: { group: string; device: string } }
type Listing = { Querystring: { after?: string; limit?: string; user?: string; group?: string } }

const DevicePath = Type.Object({ device: Type.String({ minLength: 1, maxLength: 200 }) })
const Keys = Type.Object({ p256dh: Type.String(), auth: Type.String() })
const TransportInput = Type.Union([
  Type.Object({ kind: Type.Literal('webpush'), endpoint: Type.String({ format: 'uri' }), keys: Keys }),
  Type.Object({
    kind: Type.Literal('apns'),
    token: Type.String(),
    topic: Type.String(),
    environment: Type.Optional(Type.Enum(['production', 'sandbox'])),
  }),
  Type.Object({ kind: Type.Literal('fcm'), token: Type.String() }),
  Type.Object({
    kind: Type.Literal('webhook'),
    url: Type.String({ format: 'uri' }),
    secret: Type.Optional(Type.String({ description: '16 to 200 characters; `whsec_…` as base64' })),
  }),
])
const Registration = Type.Object({
  user: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  groups: Type.Optional(Type.Array(Type.String(), { maxItems: 100 })),
  transports: Type.Optional(
    Type.Array(TransportInput, { maxItems: 8, description: 'In order of preference' }),
  ),
})

/** `/v1/devices` and `/v1/groups`. */
export function addPushDevices(server: FastifyInstance, options: PushDeviceRoutesOptions): void {
  addRegistration(server, options)
  addReading(server, options)
  addGroups(server, options)
}

function addRegistration(server: FastifyInstance, { devices, allowPrivate }: PushDeviceRoutesOptions): void {
  server.put<ByDevice>(
    '/v1/devices/:device',
    {
      config: { roles: ['producer'] },
      schema: {
        tags: ['push'],
        summary: 'Registers a device, or changes it',
        description:
          'What is left out stays as it is. The token lets the device listen; it is the same each time, until the ' +
          'device is deleted.',
        security: [{ key: [] }],
        params: DevicePath,
        body: Registration,
        response: {
          200: Type.Object({ device: Type.String(), token: Type.String() }),
          ...problems({ 400: 'It does not fit; `errors` lists every fault' }),
        },
      },
    },
    async (request, reply) => {
      const { device } = request.params
      const registration = parseRegistration(device, request.body, { allowPrivate })
      return reply.header('cache-control', 'no-store').send(await devices.put(device, registration))
    },
  )
  server.delete<ByDevice>(
    '/v1/devices/:device',
    {
      config: { roles: ['producer'], bodyOptional: true },
      schema: {
        tags: ['push'],
        summary: 'Forgets a device',
        description: 'What is open for it is withdrawn, and its token is worth nothing any more.',
        security: [{ key: [] }],
        params: DevicePath,
        response: { 204: Type.Null(), ...problems({ 404: 'There is no such device' }) },
      },
    },
    async (request, reply) => {
      const { device } = request.params
      assertNames({ device })
      if (!(await devices.remove(device))) throw DEVICE_NOT_FOUND({ device })
      return reply.code(204).send()
    },
  )
}

function addReading(server: FastifyInstance, { devices }: PushDeviceRoutesOptions): void {
  server.get<ByDevice>(
    '/v1/devices/:device',
    {
      config: { roles: ['producer', 'viewer'] },
      schema: {
        tags: ['push'],
        summary: 'Shows a device, its transports and what is open for it',
        security: [{ key: [] }],
        params: DevicePath,
        response: { 200: Type.Any(), ...problems({ 404: 'There is no such device' }) },
      },
    },
    async (request, reply) => {
      const { device } = request.params
      assertNames({ device })
      const view = await devices.get(device)
      if (!view) throw DEVICE_NOT_FOUND({ device })
      return reply.header('cache-control', 'no-store').send(view)
    },
  )
  server.get<Listing>(
    '/v1/devices',
    {
      config: { roles: ['viewer'] },
      schema: {
        tags: ['push'],
        summary: 'Lists devices in the order of their ids',
        security: [{ key: [] }],
        querystring: Type.Object({
          after: Type.Optional(Type.String({ description: 'Id of the last device of the page before' })),
          limit: Type.Optional(Type.String({ description: '1 to 200; 50 unless said' })),
          user: Type.Optional(Type.String()),
          group: Type.Optional(Type.String()),
        }),
        response: { 200: Type.Any(), ...problems() },
      },
    },
    async (request, reply) => {
      const found = await devices.list(listingOf(request))
      return reply.header('cache-control', 'no-store').send({ devices: found })
    },
  )
}

function listingOf(request: FastifyRequest<Listing>) {
  const { after, limit, user, group } = request.query
  assertNames({
    ...(after === undefined ? {} : { after }),
    ...(user === undefined ? {} : { user }),
    ...(group === undefined ? {} : { group }),
  })
  return {
    limit: Math.min(Math.max(Math.trunc(Number(limit ?? 50)) || 50, 1), 200),
    ...(after === undefined ? {} : { after }),
    ...(user === undefined ? {} : { user }),
    ...(group === undefined ? {} : { group }),
  }
}

function addGroups(server: FastifyInstance, { devices }: PushDeviceRoutesOptions): void {
  const schema = (summary: string) => ({
    tags: ['push'],
    summary,
    security: [{ key: [] }],
    params: Type.Object({ group: Type.String(), device: Type.String() }),
    response: { 204: Type.Null(), ...problems({ 404: 'There is no such device' }) },
  })
  const path = '/v1/groups/:group/devices/:device'
  server.put<ByGroup>(
    path,
    {
      config: { roles: ['producer'], bodyOptional: true },
      schema: schema('Adds a device to a group; a group begins to exist with its first device'),
    },
    async (request, reply) => {
      const { group, device } = request.params
      assertNames({ group, device })
      await devices.join(group, device)
      return reply.code(204).send()
    },
  )
  server.delete<ByGroup>(
    path,
    { config: { roles: ['producer'], bodyOptional: true }, schema: schema('Takes a device out of a group') },
    async (request, reply) => {
      const { group, device } = request.params
      assertNames({ group, device })
      await devices.leave(group, device)
      return reply.code(204).send()
    },
  )
}
