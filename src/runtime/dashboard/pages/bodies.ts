import type { Clock } from '../../../core/clock.ts'
import type { BodyUpkeep } from '../../../domain/bodies/upkeep.ts'
import type { AuditLog } from '../../../platform/access.ts'
import type { LatestRuns } from '../../../platform/queues/latest-runs.ts'
import { recordAct } from '../act.ts'
import { link } from '../links.ts'
import { noticeOf } from '../notices.ts'
import { type DashboardPage, home, type OverviewLine } from '../page.ts'
import { read, shared } from '../reading.ts'
import { overviewOfBodies, renderBodies } from './bodies-view.ts'

export interface BodiesPageOptions {
  clock: Clock
  upkeep: Pick<BodyUpkeep, 'look' | 'askStores' | 'repairs'>
  /** Of the jobs `upkeepJobs`. */
  runs(): Promise<LatestRuns[]>
  /** @returns false when one waits or runs already */
  begin(job: UpkeepJob): Promise<boolean>
  audit: Pick<AuditLog, 'record'>
}

/** The jobs that look after bodies (jobs/bodies.ts). */
export const upkeepJobs = ['bodies-scrub', 'bodies-repair', 'bodies-rebalance', 'bodies-sweep'] as const
export type UpkeepJob = (typeof upkeepJobs)[number]

const active = `${home}/bodies`
const sharedMs = 1_500
/** A store that is away must not hang the page that tells of it. */
const storeWaitMs = 1_500

/** What an operator may begin here, by the last word of its route. */
const acts: Record<string, UpkeepJob> = { scrub: 'bodies-scrub', repair: 'bodies-repair' }

/** `/bodies`: stores, copies, repairs and the upkeep. */
export function createBodiesPage(options: BodiesPageOptions): DashboardPage {
  const { clock, upkeep, audit } = options
  const look = shared(clock, sharedMs, async () => ({
    bodies: await upkeep.look(),
    runs: await read(clock, () => options.runs()),
  }))
  return {
    nav: { href: active, label: 'Bodies' },
    line: lineOf(upkeep),
    register: (server, shell) => {
      server.get('/bodies', async (request, reply) => {
        const [{ bodies, runs }, stores] = await Promise.all([look(), upkeep.askStores(storeWaitMs)])
        const content = renderBodies({
          bodies,
          stores,
          runs,
          notice: noticeOf(request),
          isOperator: shell.visitor(request).isOperator,
          token: shell.token(request),
          now: shell.now(),
        })
        return shell.send(request, reply, {
          title: 'Bodies',
          active,
          live: true,
          readAt: runs.readAt,
          content,
        })
      })
      for (const [word, job] of Object.entries(acts)) {
        server.post(`/bodies/${word}`, async (request, reply) => {
          const by = shell.visitor(request).principal
          await recordAct(audit, by, { action: `bodies.${word}`, subject: job })
          const begun = await options.begin(job)
          return reply.redirect(link('/bodies', { notice: begun ? 'upkeep-begun' : 'upkeep-waits' }), 303)
        })
      }
    },
  }
}

const lineOf = (upkeep: Pick<BodyUpkeep, 'repairs'>): OverviewLine => ({
  label: 'Bodies',
  href: active,
  read: async () => overviewOfBodies(await upkeep.repairs()),
})
