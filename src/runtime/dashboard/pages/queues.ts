import { createBullBoard } from '@bull-board/api'
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter'
import { FastifyAdapter } from '@bull-board/fastify'
import type { FastifyInstance, FastifyReply } from 'fastify'
import { BatonError } from '../../../core/errors.ts'
import { withLimit } from '../../../core/lifecycle.ts'
import { QUEUE_UNAVAILABLE } from '../../../platform/queues/errors.ts'
import { QUEUES_READ_ONLY } from '../errors.ts'
import { contentPolicy } from '../gate.ts'
import { type DashboardPage, home, type Shell } from '../page.ts'
import { shapeOf } from '../shape.ts'

export interface QueuesOptions {
  backend: { inspect(queue: string): Promise<unknown> }
  queues: readonly string[]
}

const base = `${home}/queues`
const inspectMs = 3_000

/**
 * `/queues`: bull-board, which shows the entries of the engine, on Redis and on Postgres.
 *
 * Nobody can change anything with it, operators neither. To the engine an entry is a job; to Baton it is the alarm
 * clock of a row. What is retried, promoted or removed here would leave the row as it is: a "retried" failed job would
 * find its row finished and be dropped, a "removed" one would be added again by the reconciler. Nor are payloads shown,
 * since bull-board knows no roles.
 */
export function createQueuesPage(options: QueuesOptions): DashboardPage {
  return {
    nav: { href: base, label: 'Queue engine' },
    register: async (server, shell) => {
      const adapter = new FastifyAdapter()
      const board = createBullBoard({
        queues: [],
        serverAdapter: adapter.setBasePath(base),
        options: { uiConfig },
      })
      adapter.setErrorHandler(answerOf)
      const addQueues = createQueueAdder(options, (queue) => board.addQueue(queue))
      await server.register(
        async (scope) => {
          addGuards(scope, shell, addQueues)
          await scope.register(adapter.registerPlugin())
        },
        { prefix: '/queues' },
      )
    },
  }
}

const uiConfig = {
  boardTitle: 'Baton: queue engine',
  miscLinks: [{ text: 'Back to the dashboard', url: home }],
  // Nobody but us: it asks for its users' newest version, and for workers by names that ours do not have.
  showWorkers: false,
}

/** Queues are added when somebody looks, since the engine may be away when the process starts. */
function createQueueAdder(
  { backend, queues }: QueuesOptions,
  add: (queue: BullMQAdapter) => void,
): () => Promise<void> {
  const added = new Set<string>()
  return async () => {
    for (const queue of queues) {
      if (added.has(queue)) continue
      const view = await withLimit(backend.inspect(queue), inspectMs)
      if (added.has(queue)) continue
      added.add(queue)
      const adapter = new BullMQAdapter(view as never, { readOnlyMode: true, allowRetries: false })
      for (const field of ['data', 'returnValue', 'progress'] as const)
        adapter.setFormatter(field, (value: unknown) =>
          value === undefined || value === null ? value : shapeOf(value),
        )
      add(adapter)
    }
  }
}

/** Where the board asks the engine itself, whatever fails is the engine; its own words name hosts and keys. */
function answerOf(error: unknown): { status: 500; body: { error: string } } {
  const known = error instanceof BatonError ? error : QUEUE_UNAVAILABLE({ reason: 'no answer' })
  const answer = { status: known.traits.status, body: { error: known.message, code: known.code } }
  // Its types know no other status; its adapter sends any.
  return answer as never
}

function addGuards(scope: FastifyInstance, shell: Shell, addQueues: () => Promise<void>): void {
  scope.addHook('onRequest', async (request, reply) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') return shell.fail(reply, QUEUES_READ_ONLY())
    allowBoard(reply)
    try {
      await addQueues()
    } catch (error) {
      return shell.fail(reply, QUEUE_UNAVAILABLE({ reason: 'no answer' }, { cause: error }))
    }
    return undefined
  })
  scope.addHook('onSend', async (_request, reply, payload) =>
    typeof payload === 'string' && String(reply.getHeader('content-type')).startsWith('text/html')
      ? withoutForeign(payload)
      : payload,
  )
}

/** The board has a `base` element and pictures in its styles. Inline styles and scripts are refused here too. */
function allowBoard(reply: FastifyReply): void {
  const policy = contentPolicy
    .replace("base-uri 'none'", "base-uri 'self'")
    .replace("img-src 'self'", "img-src 'self' data:")
  reply.header('content-security-policy', policy)
}

/** Fonts of another host would tell it who looks, and what is inline is refused by the policy anyhow. */
const withoutForeign = (page: string): string =>
  page
    .replaceAll(/<link\b[^>]*\bhref="https?:[^>]*>/g, '')
    .replaceAll(/<style>[\s\S]*?<\/style>/g, '')
    .replaceAll(/ style="[^"]*"/g, '')
