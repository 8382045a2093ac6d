import { isId } from '../../../core/ids.ts'
import type { Pushes } from '../../../domain/push/delivery-log.ts'
import { PUSH_NOT_FOUND } from '../../../domain/push/errors.ts'
import type { PushInspection } from '../../../domain/push/inspection.ts'
import type { AuditLog } from '../../../platform/access.ts'
import { recordAct } from '../act.ts'
import { queryOf, textOf } from '../form.ts'
import { link } from '../links.ts'
import { noticeOf } from '../notices.ts'
import { type DashboardPage, home } from '../page.ts'
import { renderPush } from './push-view.ts'

export interface PushPageOptions {
  inspection: Pick<PushInspection, 'show'>
  pushes: Pick<Pushes, 'withdraw'>
  audit: Pick<AuditLog, 'record' | 'list'>
}

type ById = { Params: { id: string } }

const perPage = 50
const maxHistory = 20

/** `/pushes/:id`: what became of a push, device by device. */
export function createPushPage({ inspection, pushes, audit }: PushPageOptions): DashboardPage {
  return {
    register: (server, shell) => {
      server.get<ById>('/pushes/:id', async (request, reply) => {
        const { id } = request.params
        const page = placeOf(queryOf(request))
        const push = isId(id) ? await inspection.show(id, { ...page, limit: perPage }) : undefined
        if (!push) throw PUSH_NOT_FOUND({ id: id.slice(0, 60) })
        const content = renderPush({
          push,
          page,
          history: await audit.list({ limit: maxHistory, subject: id }),
          notice: noticeOf(request),
          isOperator: shell.visitor(request).isOperator,
          token: shell.token(request),
          now: shell.now(),
        })
        return shell.send(request, reply, {
          title: 'Push',
          active: `${home}/pushes`,
          live: page.after === undefined,
          content,
        })
      })
      server.post<ById>('/pushes/:id/withdraw', async (request, reply) => {
        const { id } = request.params
        if (!isId(id)) throw PUSH_NOT_FOUND({ id: id.slice(0, 60) })
        await recordAct(audit, shell.visitor(request).principal, { action: 'push.withdraw', subject: id })
        const result = await pushes.withdraw(id)
        if (!result) throw PUSH_NOT_FOUND({ id })
        const { withdrawn } = result
        const said =
          withdrawn > 0 ? { notice: 'withdrawn', count: String(withdrawn) } : { notice: 'nothing-open' }
        return reply.redirect(link(`/pushes/${id}`, said), 303)
      })
    },
  }
}

function placeOf(query: URLSearchParams): { device?: string; after?: string } {
  const [device, after] = [textOf(query, 'device'), textOf(query, 'after')]
  return { ...(device === undefined ? {} : { device }), ...(after === undefined ? {} : { after }) }
}
