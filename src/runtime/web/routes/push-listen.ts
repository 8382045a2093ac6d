import type { ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { withLimit } from '../../../core/lifecycle.ts'
import { LISTEN_REPLACED } from '../../../domain/push/errors.ts'
import type { Given, Listen } from '../../../domain/push/listen.ts'
import type { Listens } from '../../../domain/push/listens.ts'
import { notificationJson } from '../../../domain/push/push.ts'
import { INPUT_INVALID } from '../../../platform/queues/errors.ts'
import { OVERLOADED } from '../errors.ts'
import type { ListenAccess } from '../listen-access.ts'
import { streamListen, stuckMs } from '../listen-stream.ts'
import { problems } from '../open-api.ts'
import { sliceBytes, slicesOf } from '../text-slices.ts'

export interface PushListenOptions {
  listens: Listens
  access: ListenAccess
  /** Most listens of this process. */
  maxListens: number
}

export type ListenQuery = {
  Querystring: { device?: string | string[]; after?: string; waitMs?: string; token?: string }
}

export const ListenQuerySchema = Type.Object({
  device: Type.Union([Type.String(), Type.Array(Type.String())]),
  after: Type.Optional(Type.String({ description: 'The cursor of the last answer' })),
  waitMs: Type.Optional(Type.String({ description: '0 to 25000, which is also what is taken unless said' })),
  token: Type.Optional(Type.String()),
})

export const listenProblems = problems({
  400: 'A parameter does not fit',
  404: 'A device is not registered',
  409: 'A newer listen took over',
})

/** Platform routers want a first byte within 30 s. */
export const maxWaitMs = 25_000
const json = 'application/json; charset=utf-8'

const description =
  'With a device token for each device (`Authorization: Bearer t1,t2`, or `token=` where no header can be set), or ' +
  "a producer's key. **A listen confirms**: with `after` exactly what was delivered up to that cursor, and the " +
  'rest comes again; without it all that was delivered before. A newer listen of a device ends the older one with ' +
  '409 `LISTEN_REPLACED`. With `Accept: text/event-stream` the same as server-sent events: `id` is the cursor and ' +
  '`Last-Event-ID` the `after`.'

/** `GET /v1/listen` and `POST /v1/listen/confirm`. */
export function addPushListen(server: FastifyInstance, options: PushListenOptions): void {
  server.get<ListenQuery>(
    '/v1/listen',
    {
      exposeHeadRoute: false,
      schema: {
        tags: ['push'],
        summary: 'Waits for notifications of one or more devices',
        description,
        security: [{ key: [] }],
        querystring: ListenQuerySchema,
        response: {
          200: Type.Any({
            description: '{cursor, notifications: [{id, device, topic?, payload?, acceptedAt}]}',
          }),
          204: { description: 'The time has passed; `Baton-Cursor` says where it stands' },
          ...listenProblems,
        },
      },
    },
    async (request, reply) => {
      const stream = request.headers.accept?.includes('text/event-stream') === true
      const waitMs = waitMsOf(request)
      const listen = await openListen(options, request, stream)
      if (stream) return streamListen(listen, request, reply)
      return answerOnce(listen, reply, { waitMs, hasCursor: request.query.after !== undefined })
    },
  )
  addConfirm(server, options)
}

/** @throws OVERLOADED, INPUT_INVALID, DEVICE_TOKEN_INVALID, KEY_MISSING, KEY_INVALID, ROLE_MISSING, CURSOR_INVALID */
export async function openListen(
  { listens, access, maxListens }: PushListenOptions,
  request: FastifyRequest<ListenQuery>,
  stream: boolean,
): Promise<Listen> {
  if (listens.size >= maxListens) {
    throw OVERLOADED({ reason: `${listens.size} listens are open` }, { retryAfterMs: 5_000 })
  }
  const listeners = await access.listeners(request)
  const after = request.query.after ?? request.headers['last-event-id']
  return listens.open({ listeners, after: after === undefined ? undefined : String(after), stream })
}

function waitMsOf(request: FastifyRequest<ListenQuery>): number {
  const { waitMs } = request.query
  if (waitMs === undefined) return maxWaitMs
  if (/^\d{1,9}$/.test(waitMs)) return Math.min(Number(waitMs), maxWaitMs)
  const fault = { path: '/query/waitMs', message: `must be a whole number from 0 to ${maxWaitMs}` }
  throw INPUT_INVALID({ summary: `waitMs ${fault.message}` }, { faults: [fault] })
}

/** An answer does not wait for its mark beyond this time, ms: then it may come a second time. */
const markWithinMs = 2_000

async function answerOnce(
  listen: Listen,
  reply: FastifyReply,
  { waitMs, hasCursor }: { waitMs: number; hasCursor: boolean },
): Promise<FastifyReply> {
  const { raw } = reply
  // Until its bytes are out an answer takes up room: a listen ends with its connection or its response.
  raw.once('close', () => listen.close())
  try {
    const answer = await listen.next(waitMs)
    if (answer.kind === 'replaced') throw LISTEN_REPLACED()
    if (!hasCursor && !isGone(raw)) await withLimit(listen.answered(), markWithinMs).catch(() => undefined)
    // Nobody is there any more, perhaps since the mark: what was fetched for them must not count as delivered.
    if (answer.kind === 'notifications' && isGone(raw)) await listen.giveBack()
    raw.once('finish', () => void listen.answered())
    reply.header('baton-cursor', answer.cursor).header('cache-control', 'no-store')
    if (answer.kind === 'quiet') return reply.code(204).send()
    return sendText(reply.code(200).type(json), listenJson(answer.cursor, answer.given))
  } finally {
    if (isGone(raw)) listen.close()
  }
}

/** A large answer piece by piece: a reader that takes none for a while is cut, or it would take up room for ever. */
function sendText(reply: FastifyReply, text: string): FastifyReply {
  if (text.length <= sliceBytes) return reply.send(text)
  const { raw } = reply
  function* slices(): Generator<string | Buffer> {
    for (const slice of slicesOf(text)) {
      const timer = setTimeout(() => raw.destroy(), stuckMs)
      try {
        yield slice
      } finally {
        clearTimeout(timer)
      }
    }
  }
  reply.header('content-length', Buffer.byteLength(text))
  return reply.send(Readable.from(slices(), { highWaterMark: 1 }))
}

const isGone = (raw: ServerResponse): boolean => raw.destroyed || raw.socket?.destroyed === true

const listenJson = (cursor: string, given: Given[]): string =>
  `{"cursor":"${cursor}","notifications":[${given.map((each) => notificationJson(each.notification)).join(',')}]}`

type Confirming = { Body: { device?: unknown; cursor?: unknown } | null }

function addConfirm(server: FastifyInstance, { listens, access }: PushListenOptions): void {
  server.post<Confirming>(
    '/v1/listen/confirm',
    {
      schema: {
        tags: ['push'],
        summary: 'Confirms what a stream has delivered',
        security: [{ key: [] }],
        body: Type.Object({ device: Type.String(), cursor: Type.String() }),
        response: {
          200: Type.Object({ confirmed: Type.Integer() }),
          ...problems({
            400: 'The cursor is none, or of another device',
            404: 'The device is not registered',
          }),
        },
      },
    },
    async (request, reply) => {
      const { device, cursor } = request.body ?? {}
      if (typeof device !== 'string' || typeof cursor !== 'string') {
        const path = typeof device === 'string' ? '/cursor' : '/device'
        throw INPUT_INVALID(
          { summary: `${path} must be a text` },
          { faults: [{ path, message: 'must be a text' }] },
        )
      }
      const listener = await access.listener(request, device)
      return reply.send({ confirmed: await listens.confirm([listener], cursor) })
    },
  )
}
