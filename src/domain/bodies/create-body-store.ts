import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Clock } from '../../core/clock.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { BodyStore } from './body-store.ts'
import { BODY_STORE_INVALID } from './errors.ts'
import { createDirectoryStore } from './stores/directory.ts'
import { createS3Store } from './stores/s3.ts'
import { createWebdavStore } from './stores/webdav.ts'

/** Where bodies lie in development, when no store is configured. */
export const defaultBodyStores = ['file:.baton/bodies-a', 'file:.baton/bodies-b']

/** What stores of this process share. */
export interface StoreSurroundings {
  /** For bodies whose id is not known yet; the system's folder for such unless said. */
  spoolFolder?: string
  metrics?: Metrics
  /** Longest wait for one answer over HTTP, ms; 30 s unless said. */
  timeoutMs?: number
}

/**
 * A store by its URL:
 *
 * - `file:/a/folder`, or `file:folder` under the working directory
 * - `webdav+http://user:password@host/folder`, `webdav+https://…`
 * - `s3://KEY:SECRET@host/bucket/prefix?region=eu-central-1`; `&tls=off` for plain HTTP
 *
 * With `#drain` at its end it takes no new bodies, and rebalancing empties it.
 *
 * @throws BODY_STORE_INVALID
 */
export function createBodyStore(url: string, clock: Clock, around: StoreSurroundings = {}): BodyStore {
  const [place = '', mark] = url.split('#')
  if (mark === undefined) return storeAt(place, clock, around)
  if (mark === 'drain') return { ...storeAt(place, clock, around), draining: true }
  throw BODY_STORE_INVALID({ url: redacted(url), reason: 'only #drain may stand at its end' })
}

function storeAt(url: string, clock: Clock, around: StoreSurroundings): BodyStore {
  const scheme = /^([a-z0-9+]+):/i.exec(url)?.[1]?.toLowerCase()
  if (scheme === 'file') return createDirectoryStore({ root: directoryOf(url), clock })
  if (scheme === 's3') return s3Of(url, clock, around)
  if (scheme === 'webdav+http' || scheme === 'webdav+https') {
    return createWebdavStore({ ...around, url: parse(url.slice('webdav+'.length), url), clock })
  }
  const reason = 'it must begin with file:, webdav+http://, webdav+https:// or s3://'
  throw BODY_STORE_INVALID({ url: redacted(url), reason })
}

function s3Of(url: string, clock: Clock, around: StoreSurroundings): BodyStore {
  const { host, username, password, pathname, searchParams } = parse(url.replace(/^s3:/i, 'https:'), url)
  const [bucket = '', ...prefix] = pathname.split('/').filter((part) => part !== '')
  if (bucket === '') throw BODY_STORE_INVALID({ url: redacted(url), reason: 'it names no bucket' })
  if (username === '' || password === '') {
    throw BODY_STORE_INVALID({ url: redacted(url), reason: 'it has no KEY:SECRET@ before the host' })
  }
  const scheme = searchParams.get('tls') === 'off' ? 'http' : 'https'
  return createS3Store({
    ...around,
    endpoint: new URL(`${scheme}://${host}`),
    bucket,
    prefix: prefix.join('/'),
    clock,
    credentials: {
      accessKeyId: decodeURIComponent(username),
      secretAccessKey: decodeURIComponent(password),
      region: searchParams.get('region') ?? 'us-east-1',
    },
  })
}

function parse(text: string, url: string): URL {
  if (URL.canParse(text)) return new URL(text)
  throw BODY_STORE_INVALID({ url: redacted(url), reason: 'it is no URL' })
}

/** @throws BODY_STORE_INVALID, also for two names of one place: two copies there would be one */
export function createBodyStores(
  urls: readonly string[],
  clock: Clock,
  around: StoreSurroundings = {},
): BodyStore[] {
  const given = urls.length === 0 ? defaultBodyStores : urls
  const stores = given.map((url) => createBodyStore(url, clock, around))
  const twice = stores.find((store, index) => stores.findIndex(({ name }) => name === store.name) !== index)
  if (twice) throw BODY_STORE_INVALID({ url: twice.name, reason: 'it is named twice' })
  const active = stores.filter(({ draining }) => !draining)
  if (active.length < 2) {
    const reason = 'with it fewer than two stores take new bodies, and each body has two copies'
    throw BODY_STORE_INVALID({ url: stores.find(({ draining }) => draining)?.name ?? '(none)', reason })
  }
  return stores
}

function directoryOf(url: string): string {
  const path = url.startsWith('file://') ? fileURLToPath(url) : decodeURI(url.slice('file:'.length))
  if (path.trim() === '') throw BODY_STORE_INVALID({ url, reason: 'it names no folder' })
  return resolve(path)
}

/** Without the user and password that a URL may hold. */
const redacted = (url: string): string => url.replace(/\/\/[^@]*@/, '//')
