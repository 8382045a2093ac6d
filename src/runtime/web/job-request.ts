import { type Static, Type } from 'typebox'
import type { BatonError, Fault } from '../../core/errors.ts'
import { INPUT_INVALID, JOB_UNKNOWN } from '../../platform/queues/errors.ts'
import { type Check, createCheck, summaryOf } from '../../platform/queues/faults.ts'
import type { Job } from '../../platform/queues/job.ts'
import type { Registry } from '../../platform/queues/registry.ts'

export const mostInBatch = 1_000
/** A job for after this is more likely a mistake of units than a plan. */
export const farthestMs = 10 * 366 * 86_400_000
/** What BullMQ can order by. */
export const leastUrgent = 2_097_151

export const JobRequest = Type.Object(
  {
    name: Type.String({ minLength: 1, maxLength: 100, description: 'A job that is defined in jobs/' }),
    payload: Type.Unknown({ description: 'What the job is given; must fit its schema' }),
    delayMs: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: farthestMs,
        description: 'Not to be run before this many ms have passed',
      }),
    ),
    runAt: Type.Optional(
      Type.Union([Type.String({ minLength: 1, maxLength: 40 }), Type.Number()], {
        description:
          'Not to be run before this instant: ISO 8601 with a zone (`2027-01-31T08:00:00Z`), or ms since the Unix ' +
          'epoch. An instant that has passed means at once. Not together with `delayMs`.',
      }),
    ),
    priority: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: leastUrgent,
        description: '0 goes before all others, then 1, 2, …',
      }),
    ),
    dedupeKey: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 500,
        description:
          'While a job with the same name and key is unfinished, its id is answered and no other is made',
      }),
    ),
    durable: Type.Optional(
      Type.Boolean({
        description: 'false: without a row in the ledger; faster, and lost with the queue engine',
      }),
    ),
  },
  { additionalProperties: false },
)

export interface ReadJob {
  job: Job
  payload: unknown
  durable: boolean
  priority: number
  delayMs?: number
  /** Epoch ms. */
  runAt?: number
  dedupeKey?: string
}

/** Reads what is asked for in one request: a job or an array of them. */
export interface JobRequestReader {
  /**
   * @throws INPUT_INVALID with every fault of every job at once
   * @throws JOB_UNKNOWN when nothing but names is wrong
   */
  read(body: unknown, now: number): ReadJob[]
}

export function createJobRequestReader(registry: Registry): JobRequestReader {
  const envelope = createCheck(JobRequest)
  return {
    read: (body, now) => {
      const faults: Fault[] = []
      const unknown: string[] = []
      const requests = Array.isArray(body) ? readBatch(body, faults) : [body]
      const jobs: ReadJob[] = []
      for (const [index, request] of requests.entries()) {
        const at = Array.isArray(body) ? `/${index}` : ''
        const read = readOne({ request, registry, envelope, now })
        if ('job' in read) jobs.push(read)
        else if (faults.length < mostFaults) {
          for (const fault of read.faults) faults.push({ path: `${at}${fault.path}`, message: fault.message })
          if (read.unknown !== undefined) unknown.push(read.unknown)
        }
      }
      if (faults.length > 0) throw refusal(faults, unknown)
      return jobs
    },
  }
}

const mostFaults = 1_000

function readBatch(body: unknown[], faults: Fault[]): unknown[] {
  if (body.length > 0 && body.length <= mostInBatch) return body
  faults.push({ path: '', message: `must hold from 1 to ${mostInBatch} jobs, not ${body.length}` })
  return []
}

function refusal(faults: Fault[], unknown: string[]): BatonError {
  const [name] = unknown
  return name !== undefined && unknown.length === faults.length
    ? JOB_UNKNOWN({ name: name.slice(0, 100) }, { faults })
    : INPUT_INVALID({ summary: summaryOf(faults) }, { faults })
}

interface Reading {
  request: unknown
  registry: Registry
  envelope: Check
  now: number
}

interface Refused {
  faults: Fault[]
  unknown?: string
}

/** Nearly every request is in order and asks for nothing special: those take the short way. */
function readOne(reading: Reading): ReadJob | Refused {
  const { request, registry, envelope } = reading
  const faults = envelope(request)
  if (faults.length > 0) return readThoroughly(reading, faults)
  const given = request as Given
  const job = registry.find(given.name)
  if (!job || !isPlain(given)) return readThoroughly(reading, faults)
  const payloadFaults = registry.validate(job.name, given.payload)
  return payloadFaults.length === 0 ? plain(job, given) : { faults: payloadFaults.map(belowPayload) }
}

/** Looks at everything that can be looked at, so that all faults are told at once. */
function readThoroughly({ request, registry, now }: Reading, envelopeFaults: Fault[]): ReadJob | Refused {
  const given = (typeof request === 'object' && request !== null ? request : {}) as Given
  const faults = [...envelopeFaults]
  const named = typeof given.name === 'string' && given.name !== ''
  const job = named ? registry.find(given.name) : undefined
  if (named && !job) faults.push({ path: '/name', message: 'is not the name of a job' })
  if (job) faults.push(...jobFaults(registry, job, given))
  const runAt = readRunAt(given, now, faults)
  if (faults.length > 0 || !job) return { faults, ...(named && !job ? { unknown: given.name } : {}) }
  return {
    ...plain(job, given),
    ...timing(given, runAt),
    ...(given.dedupeKey === undefined ? {} : { dedupeKey: given.dedupeKey }),
  }
}

function* jobFaults(registry: Registry, job: Job, given: Given): Generator<Fault> {
  if ('payload' in given) {
    for (const fault of registry.validate(job.name, given.payload)) yield belowPayload(fault)
  }
  if (given.dedupeKey !== undefined && !isDurable(job, given)) {
    yield { path: '/dedupeKey', message: 'needs a durable job: the ledger keeps the keys' }
  }
}

type Given = Static<typeof JobRequest>

/** Nothing but name, payload, priority and durable: nearly every request. */
const isPlain = (given: Given): boolean =>
  given.delayMs === undefined && given.runAt === undefined && given.dedupeKey === undefined

const plain = (job: Job, given: Given): ReadJob => ({
  job,
  payload: given.payload,
  durable: isDurable(job, given),
  priority: given.priority ?? 0,
})

const isDurable = (job: Job, given: Given): boolean => given.durable ?? job.durable

const belowPayload = ({ path, message }: Fault): Fault => ({ path: `/payload${path}`, message })

function timing(given: Given, runAt: number | undefined): Pick<ReadJob, 'delayMs' | 'runAt'> {
  if (runAt !== undefined) return { runAt }
  return given.delayMs === undefined ? {} : { delayMs: given.delayMs }
}

const iso = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})$/

function readRunAt(given: Given, now: number, faults: Fault[]): number | undefined {
  const { runAt } = given
  if (runAt === undefined || (typeof runAt !== 'string' && typeof runAt !== 'number')) return undefined
  const refuse = (message: string): undefined => void faults.push({ path: '/runAt', message })
  if (given.delayMs !== undefined) return refuse('must not stand beside delayMs')
  const at = typeof runAt === 'number' ? runAt : iso.test(runAt) ? Date.parse(runAt) : Number.NaN
  if (!Number.isFinite(at) || at < 0) {
    return refuse('must be ISO 8601 with a zone, such as 2027-01-31T08:00:00Z, or ms since 1970')
  }
  return at - now > farthestMs ? refuse('must lie within the next ten years') : Math.ceil(at)
}
