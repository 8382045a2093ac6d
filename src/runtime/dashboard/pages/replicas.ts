import type { FastifyInstance, FastifyRequest } from 'fastify'
import { codeOf } from '../../../core/errors.ts'
import { viewDocumentOf } from '../../../domain/sync/fail-over/document.ts'
import type { FailOvers } from '../../../domain/sync/fail-over/fail-overs.ts'
import type { SyncView } from '../../../domain/sync/sync-view.ts'
import type { AuditLog, Principal } from '../../../platform/access.ts'
import { recordAct } from '../act.ts'
import { fieldOf, formOf } from '../form.ts'
import { link } from '../links.ts'
import { type Notice, noticeOf } from '../notices.ts'
import { type DashboardPage, home, type Shell } from '../page.ts'
import { overviewOfSync, renderReplicas } from './replicas-view.ts'

export interface ReplicasPageOptions {
  failOvers: Pick<FailOvers, 'begin' | 'abort' | 'view'>
  replicas: {
    list(): Promise<SyncView>
    verify(name: string): Promise<unknown>
    approvePlan(name: string, plan: string, actor: string): Promise<unknown>
  }
  audit: Pick<AuditLog, 'record'>
}

const active = `${home}/replicas`

/** `/replicas`: what this site is, its replicas, and fail-overs. */
export function createReplicasPage(options: ReplicasPageOptions): DashboardPage {
  const { failOvers, replicas } = options
  // Not shared among those who look: whoever has just begun or aborted something is to see it.
  const look = async () => {
    const [sync, view] = await Promise.all([replicas.list(), failOvers.view()])
    return { sync, failOvers: viewDocumentOf(view) }
  }
  return {
    nav: { href: active, label: 'Replicas' },
    line: { label: 'Replicas', href: active, read: async () => overviewOfSync(await replicas.list()) },
    register: (server, shell) => {
      server.get('/replicas', async (request, reply) => {
        const content = renderReplicas({
          ...(await look()),
          notice: noticeOf(request),
          isOperator: shell.visitor(request).isOperator,
          token: shell.token(request),
          now: shell.now(),
        })
        return shell.send(request, reply, { title: 'Replicas', active, live: true, content })
      })
      addActs(server, shell, options)
    },
  }
}

type Act = (fields: { get(name: string): string }, by: Principal) => Promise<Notice>

function addActs(
  server: FastifyInstance,
  shell: Shell,
  { failOvers, replicas, audit }: ReplicasPageOptions,
): void {
  const acts: Record<string, Act> = {
    'fail-over': async (fields, by) => {
      const mode = fields.get('mode')
      if (mode !== 'rehearse' && mode !== 'soft' && mode !== 'hard') return 'fail-over-refused'
      const to = fields.get('to')
      const begun = failOvers.begin({ mode, to, confirm: fields.get('confirm'), ...whoIs(by) })
      return told(begun, 'fail-over-begun')
    },
    abort: (_fields, by) => told(failOvers.abort(whoIs(by)), 'fail-over-aborted'),
    verify: async (fields, by) => {
      await recordAct(audit, by, { action: 'replica.verify', subject: fields.get('name') })
      return told(replicas.verify(fields.get('name')), 'verify-asked')
    },
    approve: async (fields, by) => {
      const name = fields.get('name')
      await recordAct(audit, by, { action: 'replica.approve', subject: name })
      return told(replicas.approvePlan(name, fields.get('plan'), by.name), 'plan-approved')
    },
  }
  for (const [word, act] of Object.entries(acts)) {
    server.post(`/replicas/${word}`, async (request, reply) => {
      const notice = await act(fieldsOf(request), shell.visitor(request).principal)
      return reply.redirect(link('/replicas', { notice }), 303)
    })
  }
}

const whoIs = (by: Principal) => ({ actor: by.name, details: { key: by.owner, from: 'dashboard' } })

function fieldsOf(request: FastifyRequest): { get(name: string): string } {
  const form = formOf(request)
  return { get: (name) => fieldOf(form, name)?.slice(0, 200) ?? '' }
}

/** What a person may have met is told on the page; what nobody expects is an error page. */
const refusals: Record<string, Notice> = {
  FAIL_OVER_RUNNING: 'fail-over-running',
  FAIL_OVER_NONE: 'fail-over-none',
  FAIL_OVER_COMMITTED: 'fail-over-committed',
  FAIL_OVER_NOT_HERE: 'fail-over-refused',
  FAIL_OVER_UNCONFIRMED: 'fail-over-unconfirmed',
  REPLICA_NOT_FOUND: 'fail-over-refused',
  FUSE_NOT_FOUND: 'plan-gone',
  FUSE_EXPIRED: 'plan-gone',
}

async function told(work: Promise<unknown>, done: Notice): Promise<Notice> {
  try {
    await work
    return done
  } catch (error) {
    const notice = refusals[codeOf(error) ?? '']
    if (!notice) throw error
    return notice
  }
}
