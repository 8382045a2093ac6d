import type { FastifyRequest } from 'fastify'
import { fieldOf, queryOf } from './form.ts'
import { type Html, html } from './html.ts'

/** What is said after an action. Only these words can come through the address. */
const texts = {
  retried: ['good', 'The job is waiting again.'],
  unfinished: ['bad', 'The job is not finished, so there is nothing to retry.'],
  cancelled: ['good', 'The job is cancelled.'],
  requested: ['good', 'The job runs; it was asked to stop and is cancelled as soon as its handler lets go.'],
  finished: ['bad', 'The job is finished already, so there is nothing to cancel.'],
  missing: ['bad', 'There is no such job any more.'],
  none: ['bad', 'No job was selected.'],
  begun: ['good', 'The retry has begun. It goes on when you leave this page.'],
  running: ['bad', 'A retry of the same jobs runs already.'],
  stopped: ['good', 'The retry is stopped. What was retried stays retried.'],
  ended: ['bad', 'The retry had ended already.'],
  revoked: ['good', 'The key is revoked. Within 5 s no node takes it any more.'],
  withdrawn: ['good', 'The push is withdrawn where no provider had been given it yet.'],
  'nothing-open': [
    'bad',
    'Nothing was withdrawn: it is closed everywhere, or was given to a provider already.',
  ],
  asked: ['good', 'It is asked for. A worker that works on the migration does it; this page follows it.'],
  'upkeep-begun': ['good', 'The job is added. A worker does it; this page follows it.'],
  'upkeep-waits': ['bad', 'One waits or runs already, and there is only one at a time.'],
  'unknown-device': ['bad', 'No device of that id is registered.'],
  'unknown-push': ['bad', 'That is not the id of a push.'],
  'fail-over-begun': ['good', 'It has begun. A worker brings it on; this page follows it.'],
  'fail-over-aborted': ['good', 'It is given up: this site takes writes again.'],
  'fail-over-running': ['bad', 'A fail-over is under way already.'],
  'fail-over-none': ['bad', 'No fail-over is under way.'],
  'fail-over-committed': [
    'bad',
    'Too late: the other site was asked to open. This site stays closed until it knows.',
  ],
  'fail-over-refused': ['bad', 'This cannot be asked of this site.'],
  'fail-over-unconfirmed': ['bad', 'Nothing was done: that is not the name of the leader.'],
  'verify-asked': ['good', 'It is asked for. A worker does it; this page follows it.'],
  'plan-approved': ['good', 'The deletes of the plan are sent now.'],
  'plan-gone': ['bad', 'There is no such plan any more, or it is too old: what it held back is judged anew.'],
} satisfies Record<string, [tone: 'good' | 'bad', text: string]>

export type Notice = keyof typeof texts

export function noticeOf(request: FastifyRequest): Html {
  const query = queryOf(request)
  const name = fieldOf(query, 'notice') ?? ''
  if (!Object.hasOwn(texts, name)) return html``
  const [tone, text] = texts[name as Notice]
  const count = fieldOf(query, 'count')
  const counted = count !== undefined && /^\d{1,6}$/.test(count) ? `${count} × ` : ''
  return html`<p class="notice notice-${tone}" role="status">${counted}${text}</p>`
}
