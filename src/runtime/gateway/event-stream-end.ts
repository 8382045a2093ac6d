import type { IncomingMessage, ServerResponse } from 'node:http'
import type { OpenStream } from './lease.ts'
import { createLull } from './lull.ts'

/** When the clients come again, ms; not all at once. */
const comeAgain = { leastMs: 500, spreadMs: 2_500 }

/**
 * Lets an event stream be ended by the gateway: between two events, and with a hint when to come again. The client then
 * reconnects by itself, with the id of the last event that it has.
 */
export function endOfEvents(
  answer: IncomingMessage,
  response: ServerResponse,
  leave: () => void,
): Pick<OpenStream, 'close'> {
  const encoding = answer.headers['content-encoding'] ?? 'identity'
  const readable = encoding === 'identity'
  let tail = '\n\n'

  const finish = (whole: boolean): void => {
    if (response.writableEnded || response.destroyed) return
    answer.unpipe(response)
    // It has promised a length that it will not have.
    if (answer.headers['content-length'] !== undefined) response.destroy()
    else response.end(readable && whole ? `retry: ${retryMs()}\n\n` : undefined)
    leave()
  }
  const lull = createLull({
    isWhole: () => {
      const between = !readable || /(\r\n|\n|\r)\1$/.test(tail)
      return between && answer.readableLength === 0 && !response.writableNeedDrain
    },
    onLull: finish,
  })
  // After the pipe's own listener, so what came is on its way already.
  answer.on('data', (chunk: Buffer) => {
    tail = (tail + chunk.subarray(-4).toString('latin1')).slice(-4)
    lull.note()
  })
  response.on('drain', lull.note)
  response.once('close', lull.cancel)
  return { close: lull.seek }
}

const retryMs = (): number => Math.round(comeAgain.leastMs + Math.random() * comeAgain.spreadMs)
