import type { Command } from 'commander'
import { isId } from '../../core/ids.ts'
import { insertAudit } from '../../platform/access/audit-log.ts'
import { loadConfig } from '../../platform/config/config.ts'
import { cancelChannel } from '../../platform/queues/cancel-watch.ts'
import { JOB_FINISHED, JOB_NOT_FINISHED, JOB_NOT_FOUND } from '../../platform/queues/errors.ts'
import type { FailedFilter, JobView } from '../../platform/queues/ledger.ts'
import { actorAtTerminal } from '../actor.ts'
import type { Cli } from '../cli.ts'
import { type Producer, withProducer } from '../compose/producer.ts'

interface RetryOptions {
  failed?: boolean
  name?: string
  queue?: string
  json?: boolean
}

export function registerRetry(jobs: Command, cli: Cli): void {
  jobs
    .command('retry [id]')
    .description('Sets a finished job back to waiting, or with --failed all failed ones that match.')
    .option('--failed', 'all that have failed until now')
    .option('--name <name>', 'with --failed: only of this name')
    .option('--queue <queue>', 'with --failed: only of this queue')
    .option('--json', 'print JSON')
    .action((id: string | undefined, options: RetryOptions, command) => {
      const { json, failed, ...filter } = options
      if ((id === undefined) === !failed) command.error('error: give either the id of a job or --failed')
      if (!failed && Object.keys(filter).length > 0) command.error('error: --name and --queue need --failed')
      return withProducer(loadConfig(), async (producer) => {
        const retried =
          id === undefined ? await retryFailed(producer, filter) : await retryOne(producer, known(id))
        cli.print(json ? JSON.stringify({ retried }) : `${retried} set back to waiting`)
      })
    })
}

export function registerCancel(jobs: Command, cli: Cli): void {
  jobs
    .command('cancel <id>')
    .description('Cancels a job; an active one by its signal, on whichever node it runs.')
    .option('--json', 'print JSON')
    .action((id: string, options: { json?: boolean }) =>
      withProducer(loadConfig(), async (producer) => {
        const state = await cancelOne(producer, known(id))
        if (options.json) cli.print(JSON.stringify({ id, state }))
        else cli.print(state === 'cancelled' ? `${id} cancelled` : `${id} runs; it was asked to stop`)
      }),
    )
}

/** Postgres would refuse anything else with an error about its types. */
export function known(id: string): string {
  if (!isId(id)) throw JOB_NOT_FOUND({ id })
  return id
}

async function seen({ ledger }: Producer, id: string): Promise<JobView> {
  const job = await ledger.get(id)
  if (!job) throw JOB_NOT_FOUND({ id })
  return job
}

const record = ({ postgres }: Producer, action: string, subject: string, details = {}): Promise<void> =>
  insertAudit(postgres, {
    actor: actorAtTerminal(),
    action,
    subject,
    details: { ...details, from: 'command line' },
  })

// Entries of the audit log are written first: what cannot be told of is not done.

async function retryOne(producer: Producer, id: string): Promise<number> {
  const job = await seen(producer, id)
  if (!job.finishedAt) throw JOB_NOT_FINISHED({ id, state: job.state })
  await record(producer, 'job.retry', id)
  const answer = await producer.ledger.retry(id)
  if (answer === 'retried') return 1
  throw JOB_NOT_FINISHED({ id, state: (await seen(producer, id)).state })
}

const bite = 500

async function retryFailed(producer: Producer, wanted: FailedFilter): Promise<number> {
  const { rows } = await producer.postgres.query<{ at: string }>('SELECT now()::text AS at')
  // Without it a job that fails again at once would be set back for as long as we look.
  const filter = { ...wanted, ...(rows[0] ? { failedUntil: rows[0].at } : {}) }
  await record(producer, 'jobs.retry-all', wanted.name ?? wanted.queue ?? 'all', wanted)
  let total = 0
  for (let count = bite; count > 0; total += count) count = await producer.ledger.retryFailed(filter, bite)
  return total
}

async function cancelOne(producer: Producer, id: string): Promise<'cancelled' | 'requested'> {
  const job = await seen(producer, id)
  if (job.finishedAt) throw JOB_FINISHED({ id, state: job.state })
  await record(producer, 'job.cancel', id)
  const answer = await producer.ledger.cancel(id)
  if (answer === 'missing' || answer === 'finished')
    throw JOB_FINISHED({ id, state: (await seen(producer, id)).state })
  // A hint that saves the holder's next look at its rows; without it the cancel takes 2 s longer.
  if (answer === 'requested') await producer.wakeBus.publish(cancelChannel, id).catch(() => undefined)
  return answer
}
