import type { BackoffOptions } from '../../core/backoff.ts'
import type { Fault } from '../../core/errors.ts'
import { cronFault } from './cron.ts'
import { JOB_DEFINITION_INVALID } from './errors.ts'

/** What of a job can be wrong although its types are right. */
export interface Definition {
  name: unknown
  queue: unknown
  payload: unknown
  checkpoint: unknown
  attempts: unknown
  backoff: BackoffOptions
  timeoutMs: unknown
  durable: boolean
  schedule: { cron: string; timeZone?: string } | undefined
  dedupe?: unknown
  run: unknown
}

// A colon is the separator of BullMQ's keys, braces are the hash tag of a Redis Cluster, and a text of digits
// only would be taken for a number by both.
const word = /^[A-Za-z][A-Za-z0-9._-]{0,99}$/
const wordRule = 'must begin with a letter and hold only letters, digits, `.`, `_` and `-`, at most 100'
const dayMs = 86_400_000

/** @throws JOB_DEFINITION_INVALID with all faults at once */
export function assertDefinition(job: Definition): void {
  const faults: Fault[] = []
  const demand = (holds: boolean, path: string, message: string): void => {
    if (!holds) faults.push({ path, message })
  }
  demand(isWord(job.name), '/name', wordRule)
  demand(isWord(job.queue), '/queue', wordRule)
  demand(isSchema(job.payload), '/payload', 'must be a schema, such as Type.Object({…})')
  demand(job.checkpoint === undefined || isSchema(job.checkpoint), '/checkpoint', 'must be a schema')
  demand(isWhole(job.attempts, 1, 1_000), '/attempts', 'must be a whole number from 1 to 1000')
  demand(isWhole(job.timeoutMs, 1, 7 * dayMs), '/timeoutMs', 'must be whole milliseconds, at most 7 days')
  demand(isBackoff(job.backoff), '/backoff', 'must have 0 <= baseMs <= maxMs and, if given, factor >= 1')
  demand(typeof job.run === 'function', '/run', 'must be a function')
  demand(job.durable || !job.dedupe, '/dedupe', 'needs a durable job: the ledger keeps the keys')
  demand(job.durable || !job.checkpoint, '/checkpoint', 'needs a durable job: the ledger keeps it')
  if (job.schedule) faults.push(...scheduleFaults(job.schedule, job.durable))
  if (faults.length === 0) return
  const list = faults.map((fault) => `${fault.path} ${fault.message}`).join('; ')
  throw JOB_DEFINITION_INVALID({ name: String(job.name), faults: list }, { faults })
}

function* scheduleFaults(schedule: { cron: string; timeZone?: string }, durable: boolean): Generator<Fault> {
  const fault = cronFault(schedule.cron)
  if (fault) yield { path: '/schedule/cron', message: fault }
  if (schedule.timeZone !== undefined && !isTimeZone(schedule.timeZone)) {
    yield { path: '/schedule/timeZone', message: 'must be a time zone such as Europe/Vienna' }
  }
  if (!durable) yield { path: '/schedule', message: 'needs a durable job: the ledger keeps the clock' }
}

const isWord = (value: unknown): boolean => typeof value === 'string' && word.test(value)
const isSchema = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const isWhole = (value: unknown, min: number, max: number): boolean =>
  Number.isSafeInteger(value) && Number(value) >= min && Number(value) <= max
const isBackoff = ({ baseMs, maxMs, factor = 2 }: BackoffOptions): boolean =>
  Number.isFinite(baseMs) && Number.isFinite(maxMs) && baseMs >= 0 && baseMs <= maxMs && factor >= 1

function isTimeZone(name: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone !== ''
  } catch {
    return false
  }
}
