import type { ServerResponse } from 'node:http'

export interface ServerEvent {
  event: string
  /** What a client sends back as Last-Event-ID when it reconnects. */
  id?: string
  data: unknown
}

/** One client that reads server-sent events. */
export interface EventStream {
  readonly open: boolean
  /** False: the client reads too slowly and this event was not sent to it. */
  send(event: ServerEvent): boolean
  /** Sends what is due and closes; `retryMs` asks the client to come again after that time. */
  end(retryMs?: number): void
}

export interface EventStreamOptions {
  headers: Record<string, string>
  /** Called once, however it ended: by us, by the client, by a cut connection. */
  onClose(): void
  /** Time between two comment lines; platform routers cut a connection that is silent for 55 s. */
  heartbeatMs?: number
}

const defaultHeartbeatMs = 20_000
/** Bytes that may wait for one reader. */
const mostBuffered = 65_536

/**
 * Turns a response into a stream of events. Nothing is kept for a reader that does not keep up: an event that does
 * not fit is dropped and `send` says so, and a reader that takes nothing for two heartbeats is cut.
 */
export function openEventStream(response: ServerResponse, options: EventStreamOptions): EventStream {
  let open = true
  let stuckBeats = 0
  response.writeHead(200, {
    ...options.headers,
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    // Buffering proxies would hold the events back.
    'x-accel-buffering': 'no',
  })
  response.flushHeaders()

  const close = (): void => {
    if (!open) return
    open = false
    clearInterval(heartbeat)
    options.onClose()
  }
  const isFull = (): boolean => response.writableLength > mostBuffered
  const beat = (): void => {
    stuckBeats = response.writableLength > 0 ? stuckBeats + 1 : 0
    if (stuckBeats >= 2) response.destroy()
    else if (!isFull()) response.write(': still here\n\n')
  }
  const heartbeat = setInterval(beat, options.heartbeatMs ?? defaultHeartbeatMs)
  response.once('close', close)
  // The client may have left while its job was looked up: then nothing will ever be told of it any more.
  if (response.destroyed || response.closed) setImmediate(close)
  // A reader that went away is no news; without a listener it would end this process.
  response.on('error', close)

  return {
    get open() {
      return open
    },
    send: ({ event, id, data }) => {
      if (!open || isFull()) return false
      const idLine = id === undefined ? '' : `id: ${id}\n`
      response.write(`${idLine}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
      return true
    },
    end: (retryMs) => {
      if (!open) return
      response.end(retryMs === undefined ? undefined : `retry: ${retryMs}\n\n`)
      close()
    },
  }
}
