import { createInterface } from 'node:readline'
import type { Command } from 'commander'
import { createSystemClock } from '../../core/clock.ts'
import { BatonError, messageOf } from '../../core/errors.ts'
import { loadConfig } from '../../platform/config/config.ts'
import type { NewJobInput } from '../../platform/queues/accept.ts'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'
import { summaryOf } from '../../platform/queues/faults.ts'
import { createJobRequestReader, farthestMs, leastUrgent } from '../../runtime/web/job-request.ts'
import { readJson } from '../../runtime/web/json-body.ts'
import { wholeNumber } from '../arguments.ts'
import type { Cli } from '../cli.ts'
import { type Producer, withProducer } from '../compose/producer.ts'

interface EnqueueOptions {
  delay?: number
  priority?: number
  json?: boolean
}

/** `baton jobs enqueue`: takes what `POST /v1/jobs` takes, and refuses what that refuses. */
export function registerEnqueue(jobs: Command, cli: Cli): void {
  jobs
    .command('enqueue [name] [payload]')
    .description(
      'Enqueues NAME with a JSON payload; without them, one {"name", "payload", …} a line of standard input, as ' +
        'POST /v1/jobs takes it.',
    )
    .option('--delay <ms>', 'not before so many ms from now', wholeNumber(0, farthestMs))
    .option(
      '--priority <n>',
      '1 is the most urgent; without it a job goes before all that have one',
      wholeNumber(0, leastUrgent),
    )
    .option('--json', 'print JSON')
    .action((name: string | undefined, payload: string | undefined, options: EnqueueOptions, command) => {
      if (name === undefined && (options.delay !== undefined || options.priority !== undefined))
        command.error('error: --delay and --priority are for one job; a line says "delayMs" and "priority"')
      return withProducer(loadConfig(), async (producer) => {
        const show = (ids: string[]): void => {
          for (const id of ids) cli.print(options.json ? JSON.stringify({ id }) : id)
        }
        if (name !== undefined) return show(await enqueueOne(producer, { name, payload, options }))
        const count = await enqueueLines(producer, show)
        if (count === 0) cli.complain('Nothing was enqueued: standard input had no line.')
      })
    })
}

interface OneJob {
  name: string
  payload: string | undefined
  options: EnqueueOptions
}

async function enqueueOne(producer: Producer, { name, payload, options }: OneJob): Promise<string[]> {
  const request = {
    name,
    payload: parse(payload ?? '{}', 'the payload'),
    ...(options.delay === undefined ? {} : { delayMs: options.delay }),
    ...(options.priority === undefined ? {} : { priority: options.priority }),
  }
  const accepted = await producer.acceptance.accept(createReading(producer)(request))
  return accepted.map((job) => job.id)
}

function createReading({ registry }: Producer): (request: unknown) => NewJobInput[] {
  const reader = createJobRequestReader(registry)
  const clock = createSystemClock()
  return (request) => {
    if (Array.isArray(request)) throw INPUT_INVALID({ summary: 'it must be an object, not an array' })
    return reader.read(request, clock.now())
  }
}

/** As strict as the HTTP API: numbers that a double cannot hold and `__proto__` are refused. */
function parse(text: string, what: string): unknown {
  try {
    return readJson(Buffer.from(text))
  } catch (error) {
    throw INPUT_INVALID({ summary: `${what}: ${reasonOf(error)}` }, { cause: error })
  }
}

const reasonOf = (error: unknown): string =>
  error instanceof BatonError && error.faults ? summaryOf(error.faults) : messageOf(error)

const linesAtOnce = 500

/** Takes in a portion at a time; a line that does not fit stops it, and the message says which. @returns how many */
async function enqueueLines(producer: Producer, show: (ids: string[]) => void): Promise<number> {
  const read = createReading(producer)
  let portion: NewJobInput[] = []
  let count = 0
  const flush = async (): Promise<void> => {
    if (portion.length === 0) return
    const accepted = await producer.acceptance.accept(portion)
    count += portion.length
    portion = []
    show(accepted.map((job) => job.id))
  }
  let number = 0
  for await (const text of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    number++
    if (text.trim() === '') continue
    try {
      portion.push(...read(readJson(Buffer.from(text))))
    } catch (error) {
      await flush()
      throw refused(number, count, error)
    }
    if (portion.length >= linesAtOnce) await flush()
  }
  await flush()
  return count
}

function refused(line: number, count: number, error: unknown): BatonError {
  const before = count === 0 ? 'Nothing was enqueued' : `${count} before it were enqueued, as shown`
  const reason = reasonOf(error).replace(/\.$/, '')
  return INPUT_INVALID(
    { summary: `line ${line}: ${reason}. ${before}; nothing from this line on was` },
    { cause: error },
  )
}
