import { tmpdir } from 'node:os'
import type { Clock } from '../../../core/clock.ts'
import type { Metrics } from '../../../platform/metrics.ts'
import { isBodyId } from '../body-id.ts'
import type { BodyStore, StoredBody } from '../body-store.ts'
import { BODY_UNAVAILABLE } from '../errors.ts'
import { headOf, objectOf, rangeHeader, unexpected } from './answers.ts'
import { createHttpClient, discard, type HttpClient, readText } from './http-client.ts'
import { createRemoteStore, type RemoteObjects } from './remote.ts'

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
 * `dav_methods PUT DELETE; create_full_put_path on; autoindex on; autoindex_format json;`. It must write a PUT
 * elsewhere and rename it, as nginx does, else a reader could meet half a body (and would refuse it). Folders are
 * listed only as nginx's JSON; without it nothing but `list` is missing.
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

function createWebdavObjects(name: string, url: URL, client: HttpClient): RemoteObjects {
  const base = url.pathname.replace(/\/$/, '')
  const pathOf = (key: string): string => `${base}/${key}`
  const headers = authorization(url)
  const ended = async (
    answer: Awaited<ReturnType<HttpClient['send']>>,
    ...statuses: number[]
  ): Promise<number> => {
    if (!statuses.includes(answer.statusCode ?? 0)) throw unexpected(name, answer)
    await discard(answer)
    return answer.statusCode ?? 0
  }

  const head: RemoteObjects['head'] = async (key) => {
    const answer = await client.send({ method: 'HEAD', path: pathOf(key), headers })
    if ((await ended(answer, 200, 404)) === 404) return undefined
    return headOf(name, answer)
  }

  return {
    name,
    keyOf: (id) => `bodies/${id.slice(0, 2)}/${id}`,
    get: async (key, slice) => {
      const answer = await client.send({
        method: 'GET',
        path: pathOf(key),
        headers: { ...headers, ...rangeHeader(slice) },
        shared: true,
      })
      return objectOf(name, answer, slice, () => head(key))
    },
    head,
    put: async (key, body, { signal }) => {
      const answer = await client.send({ method: 'PUT', path: pathOf(key), headers, body, signal })
      await ended(answer, 200, 201, 204)
    },
    remove: async (key) => {
      const answer = await client.send({ method: 'DELETE', path: pathOf(key), headers })
      return (await ended(answer, 200, 202, 204, 404)) !== 404
    },
    list: createLister(name, async (folder) => {
      const answer = await client.send({ method: 'GET', path: pathOf(folder), headers })
      if (answer.statusCode === 200) return readText(answer, maxListingBytes)
      await ended(answer, 404)
      return undefined
    }),
    close: client.close,
  }
}

function authorization({ username, password }: URL): Record<string, string> {
  if (username === '') return {}
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  return { Authorization: `Basic ${Buffer.from(credentials).toString('base64')}` }
}

const maxListingBytes = 64 * 1_048_576

interface Entry {
  name: string
  type: string
  mtime: string
  size?: number
}

/** Reads the folders that nginx lists as JSON: `bodies/` and in it `ab/`, …, each at most once a page. */
function createLister(
  store: string,
  read: (folder: string) => Promise<string | undefined>,
): (after: string | undefined, limit: number) => Promise<StoredBody[]> {
  const entriesOf = async (folder: string): Promise<Entry[]> => {
    const text = await read(folder)
    if (text === undefined) return []
    try {
      return JSON.parse(text) as Entry[]
    } catch (error) {
      const reason = 'it does not list its folders as JSON (nginx: autoindex on; autoindex_format json)'
      throw BODY_UNAVAILABLE({ store, reason }, { cause: error })
    }
  }

  return async (after, limit) => {
    const page: StoredBody[] = []
    const folders = (await entriesOf('bodies/')).map((entry) => entry.name).sort()
    for (const folder of folders.filter((each) => after === undefined || each >= after.slice(0, 2))) {
      const bodies = (await entriesOf(`bodies/${folder}/`))
        .filter((entry) => isBodyId(entry.name) && (after === undefined || entry.name > after))
        .sort((a, b) => (a.name < b.name ? -1 : 1))
      for (const { name, size = 0, mtime } of bodies) {
        page.push({ id: name, size, modifiedAt: Date.parse(mtime) || 0 })
        if (page.length >= limit) return page
      }
    }
    return page
  }
}
