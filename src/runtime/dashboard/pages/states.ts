import type { FastifyInstance } from 'fastify'
import { isId } from '../../../core/ids.ts'
import type { Action, StateAdministration } from '../../../domain/state/administration.ts'
import { MIGRATION_NOT_FOUND } from '../../../domain/state/errors.ts'
import { isOver } from '../../../domain/state/migration/migration.ts'
import type { MigrationView } from '../../../domain/state/migration/view.ts'
import type { AuditLog } from '../../../platform/access.ts'
import { recordAct } from '../act.ts'
import { link } from '../links.ts'
import { noticeOf } from '../notices.ts'
import { type DashboardPage, home, type OverviewLine, type Shell } from '../page.ts'
import { renderMigration } from './migration-view.ts'
import { overviewOfStates, renderStates } from './states-view.ts'

export interface StatesOptions {
  states: Pick<StateAdministration, 'view' | 'request' | 'failed' | 'gate' | 'migrations'>
  /** Has a worker work on the migration, unless one does. */
  enqueue(id: string): Promise<void>
  audit: Pick<AuditLog, 'record' | 'list'>
}

type ById = { Params: { id: string } }

const active = `${home}/states`
const shown = 20
/** Of those that go on; each costs three statements. */
const looked = 5
const shownLines = 200
const shownFailed = 50
const maxHistory = 20
const actions: readonly Action[] = ['pause', 'resume', 'cut-over', 'roll-back', 'cancel', 'finish']

/** `/states` and `/states/:id`: migrations of device states, the gate and the storm guard. */
export function createStatesPage(options: StatesOptions): DashboardPage {
  const { states } = options
  return {
    nav: { href: active, label: 'Device state' },
    line: lineOf(states),
    register: (server, shell) => {
      server.get('/states', async (request, reply) => {
        const [migrations, gate] = await Promise.all([states.migrations.list(shown), states.gate()])
        const underWay = await viewsOf(states, migrations)
        const content = renderStates({ migrations, underWay, gate, now: shell.now() })
        return shell.send(request, reply, { title: 'Device state', active, live: true, content })
      })
      addMigration(server, shell, options)
      for (const action of actions) addAction(server, shell, { ...options, action })
    },
  }
}

const lineOf = (states: StatesOptions['states']): OverviewLine => ({
  label: 'Device state',
  href: active,
  read: async () => {
    const [migrations, gate] = await Promise.all([states.migrations.list(shown), states.gate()])
    return overviewOfStates(await viewsOf(states, migrations), gate)
  },
})

const viewsOf = (
  states: StatesOptions['states'],
  migrations: Awaited<ReturnType<StatesOptions['states']['migrations']['list']>>,
): Promise<MigrationView[]> =>
  Promise.all(
    migrations
      .filter(({ phase }) => !isOver(phase))
      .slice(0, looked)
      .map(({ id }) => states.view(id)),
  )

function addMigration(server: FastifyInstance, shell: Shell, { states, audit }: StatesOptions): void {
  server.get<ById>('/states/:id', async (request, reply) => {
    const id = known(request.params.id)
    const [view, failed, history] = await Promise.all([
      states.view(id, shownLines),
      states.failed(id, shownFailed),
      audit.list({ limit: maxHistory, subject: id }),
    ])
    const content = renderMigration({
      view,
      failed,
      history,
      notice: noticeOf(request),
      isOperator: shell.visitor(request).isOperator,
      token: shell.token(request),
      now: shell.now(),
    })
    return shell.send(request, reply, { title: 'Migration', active, live: true, content })
  })
}

function addAction(
  server: FastifyInstance,
  shell: Shell,
  { states, enqueue, audit, action }: StatesOptions & { action: Action },
): void {
  server.post<ById>(`/states/:id/${action}`, async (request, reply) => {
    const id = known(request.params.id)
    const by = shell.visitor(request).principal
    await recordAct(audit, by, { action: `migration.${action}`, subject: id })
    await states.request(id, action)
    // Nobody may be at work on it any more: what is asked for would never happen.
    if (action !== 'pause') await enqueue(id)
    return reply.redirect(link(`/states/${id}`, { notice: 'asked' }), 303)
  })
}

/** @throws MIGRATION_NOT_FOUND: Postgres would refuse anything else with an error about its types */
function known(id: string): string {
  if (!isId(id)) throw MIGRATION_NOT_FOUND({ id: id.slice(0, 60) })
  return id
}
