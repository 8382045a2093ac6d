import { type Harness, viewer } from './web-harness.ts'

export interface ReadEvent {
  event: string
  id?: string
  data: Record<string, unknown>
}

export interface EventReader {
  next(): Promise<ReadEvent>
  /** True when the server closed the stream properly, false when it was cut. */
  readonly ended: Promise<boolean>
  /** Everything so far, comments and hints included. */
  readonly text: string
  leave(): void
}

/** Reads server-sent events as a browser would. */
export async function readEvents(api: Harness, id: string, headers = {}): Promise<EventReader> {
  const gone = new AbortController()
  const response = await api.request(`/v1/jobs/${id}/events`, { key: viewer, headers, signal: gone.signal })
  if (response.headers.get('content-type') !== 'text/event-stream; charset=utf-8') {
    throw new Error(`no stream: ${response.status}`)
  }
  const events: ReadEvent[] = []
  let wake: () => void = () => undefined
  let text = ''
  let over = false
  const consume = async (): Promise<boolean> => {
    let rest = ''
    try {
      for await (const chunk of (response.body as ReadableStream<Uint8Array>).pipeThrough(
        new TextDecoderStream(),
      )) {
        text += chunk
        const blocks = (rest + chunk).split('\n\n')
        rest = blocks.pop() ?? ''
        events.push(...blocks.flatMap(parse))
        wake()
      }
      return true
    } catch {
      return false
    } finally {
      over = true
      wake()
    }
  }
  const ended = consume()
  return {
    ended,
    get text() {
      return text
    },
    next: async () => {
      while (events.length === 0) {
        if (over) throw new Error(`the stream is over: ${text}`)
        await new Promise<void>((resolve) => (wake = resolve))
      }
      return events.shift() as ReadEvent
    },
    leave: () => gone.abort(),
  }
}

function parse(block: string): ReadEvent[] {
  const fields = new Map(
    block.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]),
  )
  const data = fields.get('data')
  if (data === undefined) return []
  const id = fields.get('id')
  return [
    {
      event: fields.get('event') ?? 'message',
      ...(id === undefined ? {} : { id }),
      data: JSON.parse(data) as Record<string, unknown>,
    },
  ]
}
