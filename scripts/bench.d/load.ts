import { connect } from 'node:net'

export interface Load {
  port: number
  /** The whole request, head and body; it is sent as it is. */
  request: (n: number) => string
  connections: number
  durationMs: number
}

export interface LoadResult {
  perSecond: number
  p50Ms: number
  p99Ms: number
  /** Answers by status. */
  statuses: Record<string, number>
}

/**
 * A closed loop on keep-alive connections, with the least parsing that will do: the generator shares the cores
 * with what it measures, so what it spends is missing there.
 */
export async function load(options: Load): Promise<LoadResult> {
  const latencies: number[] = []
  const statuses: Record<string, number> = {}
  const startedAt = performance.now()
  let sent = 0
  const next = (): string | undefined =>
    performance.now() - startedAt > options.durationMs ? undefined : options.request(sent++)
  const record = (status: string, ms: number): void => {
    statuses[status] = (statuses[status] ?? 0) + 1
    latencies.push(ms)
  }
  await Promise.all(
    Array.from({ length: options.connections }, () => runConnection(options.port, next, record)),
  )
  const seconds = (performance.now() - startedAt) / 1_000
  latencies.sort((a, b) => a - b)
  const at = (share: number): number => latencies[Math.floor(latencies.length * share)] ?? 0
  return { perSecond: latencies.length / seconds, p50Ms: at(0.5), p99Ms: at(0.99), statuses }
}

function runConnection(
  port: number,
  next: () => string | undefined,
  record: (status: string, ms: number) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    socket.setNoDelay(true)
    let sentAt = 0
    let received = ''
    const send = (): void => {
      const request = next()
      if (request === undefined) {
        socket.end()
        return resolve()
      }
      sentAt = performance.now()
      socket.write(request)
    }
    socket.on('connect', send)
    socket.on('error', reject)
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1')
      if (!isWhole(received)) return
      record(received.slice(9, 12), performance.now() - sentAt)
      received = ''
      send()
    })
  })
}

function isWhole(text: string): boolean {
  const headEnd = text.indexOf('\r\n\r\n')
  if (headEnd < 0) return false
  const length = /content-length: (\d+)/i.exec(text)
  return text.length >= headEnd + 4 + Number(length?.[1] ?? 0)
}

export const post = (path: string, key: string, body: string): string =>
  `POST ${path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
