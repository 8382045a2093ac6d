import type { IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import type { Clock } from '../../../core/clock.ts'
import type { Metrics } from '../../../platform/metrics.ts'
import type { BodyStore } from '../body-store.ts'
import { headOf, objectOf, rangeHeader, unexpected } from './answers.ts'
import { createHttpClient, discard, type HttpClient, type HttpExchange } from './http-client.ts'
import { createRemoteStore, type RemoteHead, type RemoteObjects } from './remote.ts'
import { createWebdavLister } from './webdav-listing.ts'

export interface WebdavStoreOptions {
  /** `http:` or `https:`, with the folder of the store as its path; user and password are sent as Basic. */
  url: URL
  clock: Clock
  timeoutMs?: number
  maxConnections?: number
  spoolFolder?: string
  /** Failures in a row after which it is given a rest; 3 unless said. */
  failures?: number
  metrics?: Metrics | undefined
}

/**
 * Bodies on a server that takes PUT, GET, HEAD and DELETE, such as nginx with
 * `dav_methods PUT DELETE; create_full_put_path on; autoindex on; autoindex_format json;`, or on one that is all of
 * WebDAV (RFC 4918), such as Apache with `Dav On`: folders are made by MKCOL where a PUT makes none, and listed by
 * PROPFIND or as nginx's JSON; with neither nothing but `list` is missing. It must write a PUT elsewhere and rename
 * it, as both do, else a reader could meet half a body (and would refuse it).
 */
export function createWebdavStore(options: WebdavStoreOptions): BodyStore {
  const { url, clock } = options
  const name = `webdav+${url.protocol}//${url.host}${url.pathname.replace(/\/$/, '')}`
  const client = createHttpClient({
    store: name,
    origin: url,
    clock,
    timeoutMs: options.timeoutMs ?? 30_000,
    maxConnections: options.maxConnections ?? 32,
    failures: options.failures,
    metrics: options.metrics,
  })
  return createRemoteStore(createWebdavObjects(name, url, client), options.spoolFolder ?? tmpdir())
}

/** Sends a request about a path of the server. */
type Send = (
  exchange: Omit<HttpExchange, 'headers'> & { headers?: Record<string, string> },
) => Promise<IncomingMessage>

function createWebdavObjects(name: string, url: URL, client: HttpClient): RemoteObjects {
  const base = url.pathname.replace(/\/$/, '')
  const pathOf = (key: string): string => `${base}/${key}`
  const own = authorization(url)
  const send: Send = ({ headers, ...exchange }) =>
    client.send({ ...exchange, headers: { ...own, ...headers } })
  const makeFolders = createFolderMaker(name, send)
  const headAt = createHead(name, send)
  const head: RemoteObjects['head'] = (key) => headAt(pathOf(key))

  return {
    name,
    keyOf: (id) => `bodies/${id.slice(0, 2)}/${id}`,
    get: async (key, slice) => {
      const answer = await send({
        method: 'GET',
        path: pathOf(key),
        headers: rangeHeader(slice),
        shared: true,
      })
      return objectOf(name, answer, slice, () => head(key))
    },
    head,
    put: async (key, body, { signal }) => {
      const write = () => send({ method: 'PUT', path: pathOf(key), body, signal })
      const answer = await write()
      // RFC 4918, 9.7.1: the folder is not there.
      if (answer.statusCode !== 409) return void (await ended(name, answer, 200, 201, 204))
      await discard(answer)
      // The whole place is made only with its identity: where that is gone, nothing may be built.
      await makeFolders(pathOf(key).replace(/[^/]+$/, ''), key === 'identity' ? '/' : `${base}/`)
      await ended(name, await write(), 200, 201, 204)
    },
    remove: async (key) => {
      const answer = await send({ method: 'DELETE', path: pathOf(key) })
      return (await ended(name, answer, 200, 202, 204, 404)) !== 404
    },
    list: createWebdavLister(name, (exchange, folder) => send({ ...exchange, path: pathOf(folder) })),
    close: client.close,
  }
}

async function ended(store: string, answer: IncomingMessage, ...statuses: number[]): Promise<number> {
  if (!statuses.includes(answer.statusCode ?? 0)) throw unexpected(store, answer)
  await discard(answer)
  return answer.statusCode ?? 0
}

function createHead(store: string, send: Send): (path: string) => Promise<RemoteHead | undefined> {
  /** Apache leaves the length of an empty file out of the answer to HEAD. */
  const headOfGet = async (path: string): Promise<RemoteHead | undefined> => {
    const answer = await send({ method: 'GET', path })
    if (answer.statusCode !== 200) return void (await ended(store, answer, 404))
    answer.destroy()
    return headOf(store, answer)
  }
  return async (path) => {
    const answer = await send({ method: 'HEAD', path })
    if ((await ended(store, answer, 200, 404)) === 404) return undefined
    return answer.headers['content-length'] === undefined ? headOfGet(path) : headOf(store, answer)
  }
}

/** Makes a folder and those that it lies in, up to `root`, which has to be there. */
function createFolderMaker(store: string, send: Send): (folder: string, root: string) => Promise<void> {
  /** 405: it is there already. 409: the one that it lies in is not. */
  const make = async (path: string): Promise<number> =>
    ended(store, await send({ method: 'MKCOL', path }), 201, 405, 409)
  const makeFolders = async (folder: string, root: string): Promise<void> => {
    if ((await make(folder)) !== 409) return
    const above = folder.replace(/[^/]+\/$/, '')
    if (above === folder || above.length <= root.length) return
    await makeFolders(above, root)
    await make(folder)
  }
  return makeFolders
}

function authorization({ username, password }: URL): Record<string, string> {
  if (username === '') return {}
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  return { Authorization: `Basic ${Buffer.from(credentials).toString('base64')}` }
}
