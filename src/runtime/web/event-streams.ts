import type { ServerResponse } from 'node:http'
import { type EventStream, openEventStream } from './event-stream.ts'

/** All streams that are open, so that a stop can end them with a hint instead of cutting them. */
export interface EventStreams {
  open(response: ServerResponse, headers: Record<string, string>, onClose: () => void): EventStream
  readonly count: number
  /** Ends each one and asks its client to come again, spread over `overMs` so that they do not come all at once. */
  endAll(overMs: number): void
  /** The same for those that are open now; others may come. */
  dismiss(overMs: number): void
}

export function createEventStreams(): EventStreams {
  const streams = new Set<EventStream>()
  let stopping = false
  const dismiss = (overMs: number): void => {
    for (const stream of streams) stream.end(1_000 + Math.round(Math.random() * overMs))
  }
  return {
    dismiss,
    open: (response, headers, onClose) => {
      const stream = openEventStream(response, {
        headers: stopping ? { ...headers, connection: 'close' } : headers,
        onClose: () => {
          streams.delete(stream)
          onClose()
        },
      })
      streams.add(stream)
      if (stopping) setImmediate(() => stream.end(1_000))
      return stream
    },
    get count() {
      return streams.size
    },
    endAll: (overMs) => {
      stopping = true
      dismiss(overMs)
    },
  }
}
