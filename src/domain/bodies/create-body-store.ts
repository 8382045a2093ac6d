import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Clock } from '../../core/clock.ts'
import type { BodyStore } from './body-store.ts'
import { BODY_STORE_INVALID } from './errors.ts'
import { createDirectoryStore } from './stores/directory.ts'

/** Where bodies lie in development, when no store is configured. */
export const defaultBodyStores = ['file:.baton/bodies-a', 'file:.baton/bodies-b']

/**
 * A store by its URL: `file:/a/folder`, or `file:folder` under the working directory.
 *
 * @throws BODY_STORE_INVALID
 */
export function createBodyStore(url: string, clock: Clock): BodyStore {
  const scheme = /^([a-z0-9+]+):/i.exec(url)?.[1]?.toLowerCase()
  if (scheme === 'file') return createDirectoryStore({ root: directoryOf(url), clock })
  throw BODY_STORE_INVALID({ url: redacted(url), reason: 'it must begin with file:' })
}

/** @throws BODY_STORE_INVALID, also for two names of one place: two copies there would be one */
export function createBodyStores(urls: readonly string[], clock: Clock): BodyStore[] {
  const stores = (urls.length === 0 ? defaultBodyStores : urls).map((url) => createBodyStore(url, clock))
  const twice = stores.find((store, index) => stores.findIndex(({ name }) => name === store.name) !== index)
  if (twice) throw BODY_STORE_INVALID({ url: twice.name, reason: 'it is named twice' })
  return stores
}

function directoryOf(url: string): string {
  const path = url.startsWith('file://') ? fileURLToPath(url) : decodeURI(url.slice('file:'.length))
  if (path.trim() === '') throw BODY_STORE_INVALID({ url, reason: 'it names no folder' })
  return resolve(path)
}

/** Without the user and password that a URL may hold. */
const redacted = (url: string): string => url.replace(/\/\/[^/@]*@/, '//')
