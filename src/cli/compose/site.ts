import { createSite } from '../../platform/replication/site.ts'
import { createSiteWatch, type SiteWatch } from '../../platform/replication/site-watch.ts'
import { createTroubleLog } from '../../platform/trouble-log.ts'
import type { Ground } from '../compose.ts'

/** What the site is, read each second on the process's own connections. */
export function createGroundSiteWatch({
  postgres,
  clock,
  log,
}: Pick<Ground, 'postgres' | 'clock' | 'log'>): SiteWatch {
  const troubles = createTroubleLog(log, clock)
  return createSiteWatch({
    site: createSite({ postgres, clock }),
    clock,
    onError: (error) =>
      troubles.tell('the state of the site cannot be read; what it was last still holds', error),
  })
}
