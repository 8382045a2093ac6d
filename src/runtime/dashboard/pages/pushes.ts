import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Clock } from '../../../core/clock.ts'
import { isId } from '../../../core/ids.ts'
import type { PushFigures } from '../../../domain/push/figures.ts'
import {
  type ListedPush,
  type PushInspection,
  type PushPlace,
  pushStates,
} from '../../../domain/push/inspection.ts'
import type { PushState } from '../../../domain/push/push.ts'
import { fieldOf, queryOf, textOf } from '../form.ts'
import { link } from '../links.ts'
import { noticeOf } from '../notices.ts'
import { type DashboardPage, home, type OverviewLine, type Shell } from '../page.ts'
import { type Reading, read, shared } from '../reading.ts'
import { overviewOfPushes, renderPushes } from './pushes-view.ts'

export interface PushesOptions {
  clock: Clock
  inspection: Pick<PushInspection, 'list' | 'overdue' | 'backlog' | 'device' | 'figures'>
  /** Listens that this web process holds. */
  listens?: () => number
}

const active = `${home}/pushes`
const perPage = 50
const sharedMs = 1_500

/** `/pushes`: how pushes are, and the newest of them. */
export function createPushesPage(options: PushesOptions): DashboardPage {
  const { clock, inspection } = options
  const look = shared(clock, sharedMs, () => read(clock, () => inspection.figures()))
  return {
    nav: { href: active, label: 'Pushes' },
    line: lineOf(inspection),
    register: (server, shell) => {
      server.get('/pushes', async (request, reply) => {
        const elsewhere = await findOther(inspection, request)
        if (elsewhere !== undefined) return reply.redirect(elsewhere, 303)
        return showPushes(options, shell, { request, reply, figures: await look() })
      })
    },
  }
}

const lineOf = (inspection: Pick<PushInspection, 'backlog'>): OverviewLine => ({
  label: 'Pushes',
  href: active,
  read: async () => overviewOfPushes(await inspection.backlog()),
})

interface Asked {
  request: FastifyRequest
  reply: FastifyReply
  figures: Reading<PushFigures>
}

async function showPushes(
  { inspection, listens }: PushesOptions,
  shell: Shell,
  { request, reply, figures }: Asked,
): Promise<FastifyReply> {
  const query = queryOf(request)
  const filter = filterOf(fieldOf(query, 'state'))
  const cursor = readPlace(fieldOf(query, 'cursor'))
  const { pushes, cursor: next } = await listOf(inspection, filter, cursor)
  return shell.send(request, reply, {
    title: 'Pushes',
    active,
    live: cursor === undefined,
    readAt: figures.readAt,
    content: renderPushes({
      figures,
      listens: listens?.(),
      filter,
      pushes,
      notice: noticeOf(request),
      isFirst: cursor === undefined,
      ...(next ? { next: writePlace(next) } : {}),
      now: shell.now(),
    }),
  })
}

/** A push or a device that was asked for by its id has a page of its own. */
async function findOther(
  inspection: Pick<PushInspection, 'device'>,
  request: FastifyRequest,
): Promise<string | undefined> {
  const query = queryOf(request)
  const [id, device] = [fieldOf(query, 'id'), textOf(query, 'device')]
  if (id !== undefined) return isId(id) ? link(`/pushes/${id}`) : link('/pushes', { notice: 'unknown-push' })
  if (device === undefined) return undefined
  const found = await inspection.device(device)
  return found
    ? link(`/devices/${encodeURIComponent(device)}`)
    : link('/pushes', { notice: 'unknown-device' })
}

export type PushListFilter = PushState | 'overdue' | undefined

const filterOf = (text: string | undefined): PushListFilter =>
  text === 'overdue' ? 'overdue' : pushStates.find((state) => state === text)

async function listOf(
  inspection: Pick<PushInspection, 'list' | 'overdue'>,
  filter: PushListFilter,
  cursor: PushPlace | undefined,
): Promise<{ pushes: ListedPush[]; cursor?: PushPlace }> {
  if (filter === 'overdue') return { pushes: await inspection.overdue(perPage) }
  return inspection.list({
    limit: perPage,
    ...(filter === undefined ? {} : { states: [filter] }),
    ...(cursor ? { cursor } : {}),
  })
}

const writePlace = ({ id, device }: PushPlace): string => `${id}.${Buffer.from(device).toString('base64url')}`

/** Whatever is none begins at the beginning. */
function readPlace(text: string | undefined): PushPlace | undefined {
  const [id = '', coded = ''] = text?.split('.', 2) ?? []
  const device = Buffer.from(coded, 'base64url').toString()
  return isId(id) && !device.includes('\0') ? { id, device } : undefined
}
