import type { ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { messageOf } from '../../core/errors.ts'
import { LISTEN_REPLACED } from '../../domain/push/errors.ts'
import type { Given, Listen } from '../../domain/push/listen.ts'
import { notificationJson } from '../../domain/push/push.ts'
import { problemOf } from './problem.ts'
import { slicesOf } from './text-slices.ts'

/** Platform routers cut a connection that is silent for 55 s. */
export const beatMs = 20_000
/** Most bytes that wait in a connection before nothing more is fetched for it: then rows wait, not memory. */
const maxBuffered = 65_536
/** A reader that takes no slice in this time is cut, ms: at 6 KiB a second it stays. */
export const stuckMs = 2 * beatMs
/** Asks a client to come again within this time, spread, ms. */
const comeAgainMs = 3_000

/** A listen as server-sent events: `id` is the cursor. Ends when a newer listen takes over, or the process stops. */
export async function streamListen(
  listen: Listen,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  reply.hijack()
  const { raw } = reply
  raw.on('error', () => undefined)
  raw.once('close', () => listen.close())
  raw.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no',
    'x-request-id': request.id,
  })
  // The first byte, and where a client stands that gets nothing.
  raw.write(`id: ${listen.cursor}\nevent: cursor\ndata: {"cursor":"${listen.cursor}"}\n\n`)
  try {
    await pump(listen, raw)
  } catch (error) {
    request.log.debug({ reason: messageOf(error) }, 'a stream has ended')
    raw.end(`retry: ${Math.round(1_000 + Math.random() * comeAgainMs)}\n\n`)
  } finally {
    listen.close()
  }
  return reply
}

async function pump(listen: Listen, raw: ServerResponse): Promise<void> {
  while (!raw.destroyed) {
    if (!(await isReading(raw))) return
    const answer = await listen.next(beatMs)
    if (answer.kind === 'replaced') {
      raw.end(`event: problem\nretry: 3600000\ndata: ${problemOf(LISTEN_REPLACED())}\n\n`)
      return
    }
    if (answer.kind === 'notifications') {
      if (raw.destroyed) return listen.giveBack()
      if (!(await writeAll(raw, answer.given.map(eventOf).join('')))) return
      void listen.answered()
    } else if (listen.over) {
      raw.end(`retry: ${Math.round(1_000 + Math.random() * comeAgainMs)}\n\n`)
      return
    } else raw.write(': still here\n\n')
  }
}

const eventOf = ({ notification, cursor }: Given): string =>
  `id: ${cursor}\nevent: notification\ndata: ${notificationJson(notification)}\n\n`

/** Piece by piece, so that a slow reader of a large answer is told from one that has gone. False: it has. */
async function writeAll(raw: ServerResponse, text: string): Promise<boolean> {
  for (const slice of slicesOf(text)) {
    if (!(await isReading(raw))) return false
    raw.write(slice)
  }
  return true
}

/** Waits until there is room for more. A reader that takes nothing is cut. */
async function isReading(raw: ServerResponse): Promise<boolean> {
  if (raw.writableLength > maxBuffered) {
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        raw.off('drain', done).off('close', done)
        resolve()
      }
      const timer = setTimeout(() => raw.destroy(), stuckMs)
      raw.once('drain', done).once('close', done)
    })
  }
  return !raw.destroyed
}
