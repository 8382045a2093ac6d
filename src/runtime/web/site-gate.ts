import type { FastifyInstance, FastifyRequest } from 'fastify'
import { SITE_CLOSED } from '../../platform/postgres/errors.ts'
import type { SiteWatch } from '../../platform/replication/site-watch.ts'

export interface SiteGateOptions {
  site: Pick<SiteWatch, 'state' | 'onChange'>
  /** The site takes no more writes: who listens here is asked to come again, and finds the gate. */
  dismiss(): void
}

/** For those who look after the site, and for the site that leads: they say themselves what may be done now. */
const always = ['/dashboard', '/v1/replicas', '/v1/replication', '/v1/fail-over', '/v1/site']
/** To listen is to write: it confirms, and registers who listens. */
const listens = ['/v1/listen']
const retryAfterMs = 5_000

/**
 * Refuses writes while the site takes none, before anything is half done. What it knows is up to a second old: the fence
 * in the database has the last word, and answers the same (docs/protocols/sync.md).
 */
export function addSiteGate(server: FastifyInstance, { site, dismiss }: SiteGateOptions): void {
  let wasOpen = true
  site.onChange(({ intake }) => {
    const isOpen = intake === 'open'
    if (wasOpen && !isOpen) dismiss()
    wasOpen = isOpen
  })
  // After the one that asks who it is: whoever may not do it anyway learns nothing of the site.
  server.addHook('onRequest', (request, _reply, done) => {
    const isOpen = site.state === undefined || site.state.intake === 'open'
    done(isOpen || !writes(request) ? undefined : SITE_CLOSED({}, { retryAfterMs }))
  })
}

function writes(request: FastifyRequest): boolean {
  const { url } = request.routeOptions
  if (url === undefined || isUnder(always, url)) return false
  if (isUnder(listens, url)) return true
  return request.method !== 'GET' && request.method !== 'HEAD' && request.method !== 'OPTIONS'
}

const isUnder = (paths: readonly string[], url: string): boolean =>
  paths.some((path) => url === path || url.startsWith(`${path}/`))
