import { type Command, Option } from 'commander'
import { loadConfig } from '../../platform/config/config.ts'
import { JOB_NOT_FOUND } from '../../platform/queues/errors.ts'
import type { JobFilter, JobState, JobView } from '../../platform/queues/ledger.ts'
import { isClaim, redeem } from '../../platform/queues/payload-claim.ts'
import type { PayloadStore } from '../../platform/queues/payload-store.ts'
import { jobStates } from '../../runtime/web/job-view.ts'
import { wholeNumber } from '../arguments.ts'
import type { Cli, RegisterVerb } from '../cli.ts'
import { withProducer } from '../compose/producer.ts'
import { known, registerCancel, registerRetry } from '../jobs/control.ts'
import { registerEnqueue } from '../jobs/enqueue.ts'

export const registerJobs: RegisterVerb = (program, cli) => {
  const jobs = program.command('jobs').description('Lists, shows, enqueues, retries and cancels jobs.')
  registerList(jobs, cli)
  registerShow(jobs, cli)
  registerEnqueue(jobs, cli)
  registerRetry(jobs, cli)
  registerCancel(jobs, cli)
}

const mostOnPage = 10_000

function registerList(jobs: Command, cli: Cli): void {
  jobs
    .command('list')
    .description('Lists jobs, the newest first.')
    .addOption(new Option('--state <state>', 'only jobs in this state').choices(jobStates))
    .option('--name <name>', 'only jobs of this name')
    .option('--queue <queue>', 'only jobs of this queue')
    .option('--limit <n>', 'how many at most', wholeNumber(1, mostOnPage), 50)
    .option('--cursor <cursor>', 'where the last page ended')
    .option('--json', 'print JSON')
    .action((options: { json?: boolean; state?: JobState } & JobFilter) =>
      withProducer(loadConfig(), async ({ ledger }) => {
        const { json, ...filter } = options
        const page = await ledger.list(filter)
        if (json) return cli.print(JSON.stringify(page, null, 2))
        const width = Math.max(...page.jobs.map((job) => job.name.length))
        for (const job of page.jobs) cli.print(lineOf(job, width))
        if (page.jobs.length === 0 && !page.cursor) cli.complain('There is no such job.')
        if (page.cursor) cli.complain(`There may be more: --cursor ${page.cursor}`)
      }),
    )
}

const lineOf = (job: JobView, width: number): string =>
  [job.id, job.state.padEnd(9), job.name.padEnd(width), job.enqueuedAt, job.error?.message ?? '']
    .join('  ')
    .trimEnd()

function registerShow(jobs: Command, cli: Cli): void {
  jobs
    .command('show <id>')
    .description('Shows one job as JSON, its payload too.')
    .option('--json', 'the same')
    .action((id: string) =>
      withProducer(loadConfig(), async ({ ledger, payloads }) => {
        const job = await ledger.get(known(id))
        if (!job) throw JOB_NOT_FOUND({ id })
        const payload = await shownPayload(job.payload, payloads)
        cli.print(JSON.stringify({ ...job, payload }, null, 2))
      }),
    )
}

/** One that is kept apart and cannot be read is shown as its row has it: by its reference. */
const shownPayload = async (payload: unknown, payloads: PayloadStore): Promise<unknown> =>
  isClaim(payload) ? redeem(payload, payloads).catch(() => payload) : payload
