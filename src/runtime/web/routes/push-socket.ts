import websocket from '@fastify/websocket'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { BatonError } from '../../../core/errors.ts'
import { LISTEN_REPLACED } from '../../../domain/push/errors.ts'
import type { Given, Listen } from '../../../domain/push/listen.ts'
import type { Listener, Listens } from '../../../domain/push/listens.ts'
import { notificationJson } from '../../../domain/push/push.ts'
import { INPUT_INVALID } from '../../../platform/queues/errors.ts'
import { INTERNAL } from '../errors.ts'
import { beatMs } from '../listen-stream.ts'
import { problemOf } from '../problem.ts'
import { sliceBytes } from '../text-slices.ts'
import {
  type ListenQuery,
  ListenQuerySchema,
  listenProblems,
  openListen,
  type PushListenOptions,
} from './push-listen.ts'

/** What is used of a WebSocket of `ws`. */
export interface PushSocket {
  readonly readyState: number
  readonly bufferedAmount: number
  send(text: string): void
  pause(): void
  resume(): void
  close(code: number, reason?: string): void
  terminate(): void
  ping(): void
  on(event: 'message', listener: (data: Buffer) => void): void
  on(event: 'close' | 'pong', listener: () => void): void
  on(event: 'error', listener: (error: Error) => void): void
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Of a WebSocket that is about to open. */
    listen: { listen: Listen; listeners: Listener[] } | null
  }
}

const openState = 1
const maxMessageBytes = 65_536
const maxBuffered = 65_536
/** Close codes: 1001 of RFC 6455; 4409 says what the status 409 says. */
const goingAway = 1_001
const replaced = 4_409

/** `GET /v1/listen/ws`. Whoever may not listen is answered by HTTP, before the upgrade. */
export async function addPushSocket(server: FastifyInstance, options: PushListenOptions): Promise<void> {
  await server.register(websocket, { options: { maxPayload: maxMessageBytes, perMessageDeflate: false } })
  server.decorateRequest('listen', null)
  server.route<ListenQuery>({
    method: 'GET',
    url: '/v1/listen/ws',
    exposeHeadRoute: false,
    schema: {
      tags: ['push'],
      summary: 'The same over a WebSocket',
      description:
        'Gives `{"type":"cursor",…}` once, then `{"type":"notification", cursor, id, device, …}`; takes ' +
        '`{"type":"confirm","cursor":…}` and answers `{"type":"confirmed","count":…}`. A ping comes each 20 s. It is ' +
        'closed with 4409 when a newer listen takes over, with 1001 when the process stops: connect again.',
      security: [{ key: [] }],
      querystring: Type.Omit(ListenQuerySchema, ['waitMs']),
      response: { 101: { description: 'The WebSocket is open' }, ...listenProblems },
    },
    preValidation: async (request: FastifyRequest<ListenQuery>) => {
      const listeners = await options.access.listeners(request)
      // It would end the device's listen, and be answered nothing.
      if (!request.ws) throw notUpgraded()
      request.listen = { listen: await openListen(options, request, true), listeners }
      // A client that goes away before the upgrade must not leave its listen behind. Of a request that asks for an
      // upgrade only the connection says so.
      const { socket } = request.raw
      const close = (): void => request.listen?.listen.close()
      if (socket.destroyed) close()
      else socket.once('close', close)
    },
    // Beside a `wsHandler`: a route with `websocket: true` is left out of the documents by the plugin.
    handler: () => {
      throw notUpgraded()
    },
    wsHandler: (socket: PushSocket, request) => {
      if (request.listen) serveSocket(socket, request.listen, options.listens)
    },
  })
}

const notUpgraded = (): BatonError => {
  const fault = { path: '/headers/upgrade', message: 'must be websocket' }
  return INPUT_INVALID({ summary: `Upgrade ${fault.message}` }, { faults: [fault] })
}

export function serveSocket(
  socket: PushSocket,
  { listen, listeners }: { listen: Listen; listeners: Listener[] },
  listens: Listens,
): void {
  const pulse = keepAlive(socket)
  socket.on('close', () => {
    pulse.stop()
    listen.close()
  })
  socket.on('error', () => socket.terminate())
  answerEach(socket, (data) => confirm(data, listeners, listens))
  sendTo(socket, `{"type":"cursor","cursor":"${listen.cursor}"}`)
  pump(socket, listen, pulse).catch(() => socket.close(goingAway, 'try again'))
}

/** One after the other, and nothing is read meanwhile: a client that takes no answers must not fill the memory with them. */
function answerEach(socket: PushSocket, answer: (data: Buffer) => Promise<string>): void {
  let last = Promise.resolve()
  socket.on('message', (data) => {
    socket.pause()
    // Some that were read together with this one may stand before it.
    const own = last.then(async () => {
      sendTo(socket, await answer(data))
      await isReading(socket)
      if (last === own) socket.resume()
    })
    last = own
  })
}

/** Waits until there is room for more. False: it is closed. */
async function isReading(socket: PushSocket): Promise<boolean> {
  while (socket.readyState === openState && socket.bufferedAmount > maxBuffered) {
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return socket.readyState === openState
}

interface Pulse {
  /** Counts what is sent: a ping stands behind it, and its answer takes as much longer. */
  sent(bytes: number): void
  stop(): void
}

/** Whoever does not answer a ping before the next one is gone; behind a large answer it has a beat more a slice. */
function keepAlive(socket: PushSocket): Pulse {
  let beats = 0
  let sent = 0
  socket.on('pong', () => {
    beats = 0
    sent = 0
  })
  const timer = setInterval(() => {
    if (beats > sent / sliceBytes) return socket.terminate()
    beats += 1
    socket.ping()
  }, beatMs)
  return {
    sent: (bytes) => {
      sent += bytes
    },
    stop: () => clearInterval(timer),
  }
}

async function confirm(data: Buffer, listeners: Listener[], listens: Listens): Promise<string> {
  try {
    const { type, cursor } = readMessage(data)
    if (type !== 'confirm' || typeof cursor !== 'string') {
      throw INPUT_INVALID({ summary: 'a message must be {"type":"confirm","cursor":…}' })
    }
    const count = await listens.confirm(listeners, cursor)
    return `{"type":"confirmed","count":${count}}`
  } catch (error) {
    const known = error instanceof BatonError ? error : INTERNAL({}, { cause: error })
    return `{"type":"problem","problem":${problemOf(known)}}`
  }
}

function readMessage(data: Buffer): { type?: unknown; cursor?: unknown } {
  try {
    const value: unknown = JSON.parse(data.toString())
    return typeof value === 'object' && value !== null ? value : {}
  } catch {
    return {}
  }
}

async function pump(socket: PushSocket, listen: Listen, pulse: Pulse): Promise<void> {
  // Nothing more is fetched for a slow reader: its rows wait where they are.
  while (await isReading(socket)) {
    const answer = await listen.next(beatMs)
    if (answer.kind === 'replaced') {
      sendTo(socket, `{"type":"problem","problem":${problemOf(LISTEN_REPLACED())}}`)
      return socket.close(replaced, LISTEN_REPLACED.code)
    }
    if (answer.kind === 'quiet' && listen.over) return socket.close(goingAway, 'come again')
    if (answer.kind !== 'notifications') continue
    if (socket.readyState !== openState) return listen.giveBack()
    for (const given of answer.given) {
      const text = messageOf(given)
      pulse.sent(text.length)
      sendTo(socket, text)
    }
    void listen.answered()
  }
}

const messageOf = ({ notification, cursor }: Given): string =>
  `{"type":"notification","cursor":"${cursor}",${notificationJson(notification).slice(1)}`

const sendTo = (socket: PushSocket, text: string): void => {
  if (socket.readyState === openState) socket.send(text)
}
