import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A WebDAV server that keeps what it is given, and answers as a broken one would. */
export interface HostileStore {
  readonly url: URL
  readonly files: Map<string, Buffer>
  /** How often each fault was played. */
  readonly played: Map<string, number>
  /** Share of answers that are wrong, 0 to 1. */
  hostility: number
  stop(): Promise<void>
}

interface Exchange {
  request: IncomingMessage
  response: ServerResponse
  content: Buffer
}
type Fault = (exchange: Exchange) => void

const errorPage = Buffer.from('<html><h1>502 Bad Gateway</h1></html>')
const lateMs = 450

export async function startHostileStore(): Promise<HostileStore> {
  const files = new Map<string, Buffer>()
  const played = new Map<string, number>()
  let held: Exchange | undefined

  const honest = ({ request, response, content }: Exchange): void => {
    const path = request.url ?? ''
    if (request.method === 'PUT') {
      files.set(path, content)
      return void response.writeHead(201).end()
    }
    const file = files.get(path)
    if (!file) return void response.writeHead(404).end('not found')
    if (request.method === 'DELETE') {
      files.delete(path)
      return void response.writeHead(204).end()
    }
    send(request, response, file)
  }

  const other = (path: string): Buffer => {
    const own = files.get(path)
    const all = [...files].filter(([each, bytes]) => each !== path && bytes.length === own?.length)
    return all[Math.floor(Math.random() * all.length)]?.[1] ?? errorPage
  }

  const faults: Record<string, Fault> = {
    late: (exchange) => void setTimeout(() => honest(exchange), lateMs),
    // The second answer stays on the connection, where the next request may meet it.
    twice: (exchange) => {
      const { request, response } = exchange
      const leftover = other(request.url ?? '')
      response.once('finish', () =>
        response.socket?.write(
          Buffer.concat([
            Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${leftover.length}\r\n\r\n`),
            leftover,
          ]),
        ),
      )
      honest(exchange)
    },
    truncated: ({ request, response }) => {
      const file = files.get(request.url ?? '') ?? errorPage
      response.writeHead(200, { 'Content-Length': file.length })
      response.write(file.subarray(0, file.length / 2))
      setImmediate(() => response.destroy())
    },
    'another body': ({ request, response }) => send(request, response, other(request.url ?? '')),
    'flipped bit': ({ request, response }) => {
      const file = Buffer.from(files.get(request.url ?? '') ?? errorPage)
      const at = Math.floor(Math.random() * file.length)
      file[at] = (file[at] ?? 0) ^ 1
      send(request, response, file)
    },
    'wrong length': ({ request, response }) => {
      const file = files.get(request.url ?? '') ?? errorPage
      const length = Math.max(0, file.length + (Math.random() < 0.5 ? -3 : 3))
      response.socket?.write(
        Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\n\r\n`), file]),
      )
    },
    'error page': ({ response }) =>
      void response.writeHead(200, { 'Content-Type': 'text/html' }).end(errorPage),
    'server error': ({ response }) => void response.writeHead(500).end('no'),
    closed: ({ response }) => void response.destroy(),
    // Two requests get each other's answer.
    swapped: (exchange) => {
      const first = held
      if (!first) {
        held = exchange
        return void setTimeout(() => {
          if (held !== exchange) return
          held = undefined
          honest(exchange)
        }, 20)
      }
      held = undefined
      const [one, two] = [first.request.url, exchange.request.url]
      if (two !== undefined) first.request.url = two
      if (one !== undefined) exchange.request.url = one
      honest(first)
      honest(exchange)
    },
  }

  const store = { hostility: 0 }
  const server = createServer((request, response) => {
    response.on('error', () => undefined)
    void request
      .toArray()
      .then((chunks) => {
        const exchange = { request, response, content: Buffer.concat(chunks as Buffer[]) }
        const reads = request.method === 'GET' || request.method === 'HEAD'
        const names = reads ? Object.keys(faults) : ['late', 'error page', 'server error', 'closed']
        const name =
          Math.random() < store.hostility ? names[Math.floor(Math.random() * names.length)] : undefined
        if (name === undefined) return honest(exchange)
        played.set(name, (played.get(name) ?? 0) + 1)
        faults[name]?.(exchange)
      })
      .catch(() => response.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return Object.assign(store, {
    url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/dav`),
    files,
    played,
    stop: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  })
}

function send(request: IncomingMessage, response: ServerResponse, file: Buffer): void {
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
  const start = Number(range?.[1] ?? 0)
  const end = range?.[2] ? Number(range[2]) + 1 : file.length
  const part = file.subarray(start, end)
  const headers = {
    'Content-Length': part.length,
    ...(range && { 'Content-Range': `bytes ${start}-${start + part.length - 1}/${file.length}` }),
  }
  response.writeHead(range ? 206 : 200, headers).end(request.method === 'HEAD' ? undefined : part)
}
