import { createInterface } from 'node:readline'
import type { Command } from 'commander'
import { messageOf } from '../../core/errors.ts'
import { isId } from '../../core/ids.ts'
import { loadConfig } from '../../platform/config/config.ts'
import type { Acceptance, NewJobInput } from '../../platform/queues/accept.ts'
import { INPUT_INVALID, JOB_FINISHED, JOB_NOT_FINISHED, JOB_NOT_FOUND } from '../../platform/queues/errors.ts'
import type { JobState, JobView } from '../../platform/queues/ledger.ts'
import { isClaim, redeem } from '../../platform/queues/payload-claim.ts'
import type { PayloadStore } from '../../platform/queues/payload-store.ts'
import { assertFits, type Registry } from '../../platform/queues/registry.ts'
import type { Cli, RegisterVerb } from '../cli.ts'
import { type Producer, withProducer } from '../compose/producer.ts'

interface Output {
  json?: boolean
}

export const registerJobs: RegisterVerb = (program, cli) => {
  const jobs = program.command('jobs').description('Lists, shows, enqueues, retries and cancels jobs.')
  registerList(jobs, cli)
  registerShow(jobs, cli)
  registerEnqueue(jobs, cli)
  registerRetry(jobs, cli)
  registerCancel(jobs, cli)
}

const open = <T>(work: (producer: Producer) => Promise<T>): Promise<T> => withProducer(loadConfig(), work)

function registerList(jobs: Command, cli: Cli): void {
  jobs
    .command('list')
    .description('Lists jobs, the newest first.')
    .option('--state <state>', 'waiting, delayed, active, completed, failed or cancelled')
    .option('--name <name>', 'only jobs of this name')
    .option('--queue <queue>', 'only jobs of this queue')
    .option('--limit <n>', 'how many at most', '50')
    .option('--cursor <cursor>', 'where the last page ended')
    .option('--json', 'print JSON')
    .action(
      (
        options: Output & { state?: JobState; name?: string; queue?: string; limit: string; cursor?: string },
      ) =>
        open(async ({ ledger }) => {
          const { json, limit, ...filter } = options
          const page = await ledger.list({ ...filter, limit: Number(limit) })
          if (json) return cli.print(JSON.stringify(page, null, 2))
          for (const job of page.jobs) cli.print(lineOf(job))
          if (page.cursor) cli.print(`more: --cursor ${page.cursor}`)
        }),
    )
}

const lineOf = (job: JobView): string =>
  [job.id, job.state.padEnd(9), job.name, job.enqueuedAt, job.error?.message ?? ''].join('  ').trimEnd()

function registerShow(jobs: Command, cli: Cli): void {
  jobs
    .command('show <id>')
    .description('Shows one job as JSON.')
    .option('--json', 'the same')
    .action((id: string) =>
      open(async ({ ledger, payloads }) => {
        const job = await found(ledger.get(known(id)), id)
        const payload = await shownPayload(job.payload, payloads)
        cli.print(JSON.stringify({ ...job, payload }, null, 2))
      }),
    )
}

/** One that is kept apart and cannot be read is shown as its row has it: by its reference. */
const shownPayload = async (payload: unknown, payloads: PayloadStore): Promise<unknown> =>
  isClaim(payload) ? redeem(payload, payloads).catch(() => payload) : payload

async function found<T>(looking: Promise<T | undefined>, id: string): Promise<T> {
  const job = await looking
  if (!job) throw JOB_NOT_FOUND({ id })
  return job
}

/** Postgres would refuse anything else with an error about its types. */
function known(id: string): string {
  if (!isId(id)) throw JOB_NOT_FOUND({ id })
  return id
}

function registerEnqueue(jobs: Command, cli: Cli): void {
  jobs
    .command('enqueue [name] [payload]')
    .description(
      'Enqueues NAME with a JSON payload; without them, one {"name", "payload", …} a line of standard input.',
    )
    .option('--delay <ms>', 'not before so many ms from now')
    .option('--priority <n>', '1 is the most urgent; without it a job goes before all that have one')
    .option('--json', 'print JSON')
    .action(
      (
        name: string | undefined,
        payload: string | undefined,
        options: Output & { delay?: string; priority?: string },
      ) =>
        open(async ({ registry, acceptance }) => {
          const show = (ids: string[]): void => {
            for (const id of ids) cli.print(options.json ? JSON.stringify({ id }) : id)
          }
          if (name === undefined) return enqueueLines(registry, acceptance, show)
          const input = toInput(registry, {
            name,
            payload: parse(payload ?? '{}', 'the payload'),
            ...numbers(options),
          })
          const accepted = await acceptance.accept([input])
          show(accepted.map((job) => job.id))
        }),
    )
}

const numbers = (options: { delay?: string; priority?: string }): Partial<Line> => ({
  ...(options.delay === undefined ? {} : { delayMs: Number(options.delay) }),
  ...(options.priority === undefined ? {} : { priority: Number(options.priority) }),
})

interface Line {
  name: string
  payload: unknown
  delayMs?: number
  priority?: number
  dedupeKey?: string
}

function toInput(registry: Registry, line: Line): NewJobInput {
  const job = registry.get(line.name)
  assertFits(registry.validate(line.name, line.payload))
  for (const value of [line.delayMs, line.priority]) {
    if (value !== undefined && (!Number.isInteger(value) || value < 0)) {
      throw INPUT_INVALID({ summary: `${value} is not a whole number from 0` })
    }
  }
  const { name: _name, ...rest } = line
  return { job, ...rest }
}

function parse(text: string, what: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw INPUT_INVALID({ summary: `${what} is not JSON: ${messageOf(error)}` })
  }
}

const linesAtOnce = 500

/** Takes in a portion at a time; a line that does not fit stops it, and the message says which line. */
async function enqueueLines(
  registry: Registry,
  acceptance: Acceptance,
  show: (ids: string[]) => void,
): Promise<void> {
  let portion: NewJobInput[] = []
  const flush = async (): Promise<void> => {
    if (portion.length === 0) return
    const accepted = await acceptance.accept(portion)
    portion = []
    show(accepted.map((job) => job.id))
  }
  let number = 0
  for await (const text of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    number++
    if (text.trim() === '') continue
    try {
      portion.push(toInput(registry, parse(text, 'it') as Line))
    } catch (error) {
      await flush()
      const reason = messageOf(error)
      throw INPUT_INVALID(
        { summary: `line ${number}: ${reason} The lines before it were taken in` },
        { cause: error },
      )
    }
    if (portion.length >= linesAtOnce) await flush()
  }
  await flush()
}

function registerRetry(jobs: Command, cli: Cli): void {
  jobs
    .command('retry [id]')
    .description('Sets a finished job back to waiting, or with --failed all failed ones that match.')
    .option('--failed', 'all failed jobs')
    .option('--name <name>', 'with --failed: only of this name')
    .option('--queue <queue>', 'with --failed: only of this queue')
    .option('--json', 'print JSON')
    .action((id: string | undefined, options: Output & { failed?: boolean; name?: string; queue?: string }) =>
      open(async ({ ledger }) => {
        const { json, failed, ...filter } = options
        if (id === undefined && !failed) throw INPUT_INVALID({ summary: 'give an id, or --failed' })
        const retried =
          id === undefined
            ? await retryAll(() => ledger.retryFailed(filter, 500))
            : await retryOne(ledger.retry(known(id)), id)
        cli.print(json ? JSON.stringify({ retried }) : `${retried} set back to waiting`)
      }),
    )
}

async function retryAll(bite: () => Promise<number>): Promise<number> {
  let total = 0
  for (let count = await bite(); count > 0; count = await bite()) total += count
  return total
}

async function retryOne(
  retrying: Promise<'retried' | 'unfinished' | 'missing'>,
  id: string,
): Promise<number> {
  const answer = await retrying
  if (answer === 'missing') throw JOB_NOT_FOUND({ id })
  if (answer === 'unfinished') throw JOB_NOT_FINISHED({ id, state: 'unfinished' })
  return 1
}

function registerCancel(jobs: Command, cli: Cli): void {
  jobs
    .command('cancel <id>')
    .description('Cancels a job; an active one by its signal, on whichever node it runs.')
    .option('--json', 'print JSON')
    .action((id: string, options: Output) =>
      open(async ({ ledger }) => {
        const answer = await ledger.cancel(known(id))
        if (answer === 'missing') throw JOB_NOT_FOUND({ id })
        if (answer === 'finished') throw JOB_FINISHED({ id, state: 'finished' })
        cli.print(options.json ? JSON.stringify({ id, state: answer }) : `${id} ${answer}`)
      }),
    )
}
