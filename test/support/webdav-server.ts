import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A server that takes RFC 4918 by the letter, with the ways of Apache's mod_dav 2.4: where nginx is content with less. */
export interface WebdavServer {
  /** Of the root, which is all that is there at first. */
  readonly url: URL
  readonly files: Map<string, Buffer>
  /** With a slash at their ends. */
  readonly folders: Set<string>
  stop(): Promise<void>
}

interface File {
  bytes: Buffer
  at: Date
  tag: string
}

export async function startWebdavServer(): Promise<WebdavServer> {
  const written = new Map<string, { at: Date; tag: string }>()
  const files = new Map<string, Buffer>()
  const folders = new Set(['/'])
  const fileAt = (path: string): File | undefined => {
    const bytes = files.get(path)
    return bytes && { bytes, ...(written.get(path) ?? { at: new Date(), tag: 'planted' }) }
  }

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = decodeURIComponent(request.url ?? '')
    const bytes = Buffer.concat((await request.toArray()) as Buffer[])
    const end = (status: number): void => void response.writeHead(status).end()
    const isOrphan = !folders.has(path.replace(/[^/]+\/?$/, ''))
    if (request.method === 'MKCOL') {
      if (folders.has(path)) return end(405)
      if (isOrphan) return end(409)
      folders.add(path)
      return end(201)
    }
    if (request.method === 'PUT') {
      if (isOrphan) return end(409)
      files.set(path, bytes)
      written.set(path, { at: new Date(), tag: randomUUID() })
      return end(201)
    }
    if (request.method === 'PROPFIND') return list(response, path)
    if (folders.has(path)) return end(403)
    const file = fileAt(path)
    if (!file) return end(404)
    if (request.method === 'DELETE') {
      files.delete(path)
      return end(204)
    }
    send(request, response, file)
  }

  const list = (response: ServerResponse, path: string): void => {
    if (!folders.has(path)) return void response.writeHead(404).end()
    const inside = (each: string): boolean => each.replace(/[^/]+\/?$/, '') === path && each !== path
    const entries = [
      collection(path),
      ...[...folders].filter(inside).map(collection),
      ...[...files.keys()].filter(inside).map((each) => member(each, fileAt(each) as File)),
    ]
    response.writeHead(207, { 'Content-Type': 'text/xml; charset="utf-8"' })
    response.end(
      `<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:" xmlns:ns0="DAV:">\n${entries.join('\n')}\n</D:multistatus>\n`,
    )
  }

  const server = createServer((request, response) => {
    void answer(request, response).catch(() => response.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`),
    files,
    folders,
    stop: async () => {
      if (!server.listening) return
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** As Apache's: without the length of an empty file for HEAD, its tag weak for a second. */
function send(request: IncomingMessage, response: ServerResponse, { bytes, at, tag }: File): void {
  const isYoung = Date.now() - at.getTime() < 1_000
  const headers = {
    ETag: `${isYoung ? 'W/' : ''}"${tag}"`,
    'Last-Modified': at.toUTCString(),
    'Accept-Ranges': 'bytes',
  }
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
  const start = Number(range?.[1] ?? 0)
  const end = Math.min(range?.[2] ? Number(range[2]) + 1 : bytes.length, bytes.length)
  if (request.method === 'HEAD') {
    const length = bytes.length === 0 ? {} : { 'Content-Length': bytes.length }
    return void response.writeHead(200, { ...headers, ...length }).end()
  }
  if (!range || end <= start) {
    if (range && start >= bytes.length && bytes.length > 0)
      return void response.writeHead(416, { 'Content-Range': `bytes */${bytes.length}` }).end()
    return void response.writeHead(200, { ...headers, 'Content-Length': bytes.length }).end(bytes)
  }
  const part = { 'Content-Range': `bytes ${start}-${end - 1}/${bytes.length}`, 'Content-Length': end - start }
  response.writeHead(206, { ...headers, ...part }).end(bytes.subarray(start, end))
}

const collection = (path: string): string =>
  `<D:response xmlns:lp1="DAV:">\n<D:href>${encodeURI(path)}</D:href>\n<D:propstat>\n<D:prop>\n` +
  `<lp1:getlastmodified>${new Date().toUTCString()}</lp1:getlastmodified>\n</D:prop>\n` +
  '<D:status>HTTP/1.1 200 OK</D:status>\n</D:propstat>\n<D:propstat>\n<D:prop>\n<ns0:getcontentlength/>\n</D:prop>\n' +
  '<D:status>HTTP/1.1 404 Not Found</D:status>\n</D:propstat>\n</D:response>'

const member = (path: string, { bytes, at }: File): string =>
  `<D:response xmlns:lp1="DAV:">\n<D:href>${encodeURI(path)}</D:href>\n<D:propstat>\n<D:prop>\n` +
  `<lp1:getcontentlength>${bytes.length}</lp1:getcontentlength>\n` +
  `<lp1:getlastmodified>${at.toUTCString()}</lp1:getlastmodified>\n</D:prop>\n` +
  '<D:status>HTTP/1.1 200 OK</D:status>\n</D:propstat>\n</D:response>'
