import type { Clock } from '../../../core/clock.ts'
import type { Postgres } from '../../../platform/postgres/postgres.ts'
import { type ListedNode, listNodes } from '../../../platform/processes/node-list.ts'
import type { QueueBackend, QueueCounts } from '../../../platform/queues/backend.ts'
import type { Ledger, LedgerSummary } from '../../../platform/queues/ledger.ts'
import {
  type QueuesReading,
  type Reconciliation,
  readQueueFigures,
  readReconciliation,
  readSchedules,
  type ScheduleView,
} from '../../../platform/queues/queue-figures.ts'
import type { Hole } from '../html.ts'
import { type DashboardPage, home, type OverviewLine } from '../page.ts'
import { type Reading, read, shared } from '../reading.ts'
import { renderOverview } from './overview-view.ts'

export interface OverviewOptions {
  clock: Clock
  postgres: Postgres
  ledger: Pick<Ledger, 'summary'>
  backend: Pick<QueueBackend, 'engine' | 'ping' | 'counts'>
  queues: readonly string[]
  /** Of the other pages. */
  lines?: readonly OverviewLine[]
}

/** Everything on the overview, each part read by itself: one store that is away hides nothing of the others. */
export interface Overview {
  summary: Reading<LedgerSummary>
  queues: Reading<QueuesReading>
  /** Entries in the engine, by queue. */
  entries: Map<string, Reading<QueueCounts>>
  nodes: Reading<ListedNode[]>
  schedules: Reading<ScheduleView[]>
  reconciliation: Reading<Reconciliation>
  lines: { label: string; href: string; reading: Reading<Hole> }[]
  engine: { kind: 'redis' | 'postgres'; reach: Reading<{ ms: number }> }
}

/** How long one look serves all who have the page open, ms. */
const sharedMs = 1_500
const pingMs = 2_000
const maxSchedules = 50

export function createOverviewPage(options: OverviewOptions): DashboardPage {
  const look = shared(options.clock, sharedMs, () => readOverview(options))
  return {
    nav: { href: home, label: 'Overview' },
    register: (server, shell) => {
      server.get('/', async (request, reply) => {
        const overview = await look()
        return shell.send(request, reply, {
          title: 'Overview',
          active: home,
          live: true,
          readAt: overview.summary.readAt,
          content: renderOverview(overview, shell.now()),
        })
      })
    },
  }
}

async function readOverview(options: OverviewOptions): Promise<Overview> {
  const { clock, postgres, ledger, backend } = options
  const [summary, queues, nodes, schedules, reconciliation, reach, lines, entries] = await Promise.all([
    read(clock, () => ledger.summary()),
    read(clock, () => readQueueFigures(postgres, options.queues)),
    read(clock, () => listNodes(postgres)),
    read(clock, () => readSchedules(postgres, maxSchedules)),
    read(clock, () => readReconciliation(postgres)),
    read(clock, () => timed(clock, () => backend.ping(pingMs))),
    readLines(options),
    Promise.all(
      options.queues.map(async (queue) => [queue, await read(clock, () => backend.counts(queue))] as const),
    ),
  ])
  return {
    summary,
    queues,
    nodes,
    schedules,
    reconciliation,
    lines,
    entries: new Map(entries),
    engine: { kind: backend.engine, reach },
  }
}

const readLines = ({ clock, lines = [] }: OverviewOptions): Promise<Overview['lines']> =>
  Promise.all(
    lines.map(async ({ label, href, read: readLine }) => ({
      label,
      href,
      reading: await read(clock, readLine),
    })),
  )

async function timed(clock: Clock, work: () => Promise<void>): Promise<{ ms: number }> {
  const startedAt = clock.monotonicMs()
  await work()
  return { ms: clock.monotonicMs() - startedAt }
}
