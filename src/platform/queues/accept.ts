import { createBatcher } from '../../core/batcher.ts'
import type { Clock } from '../../core/clock.ts'
import { newId } from '../../core/ids.ts'
import type { Postgres, Queryable } from '../postgres/postgres.ts'
import { createAdder } from './accept-adder.ts'
import type { Entry, QueueBackend } from './backend.ts'
import { INTAKE_OVERLOADED } from './errors.ts'
import type { Job } from './job.ts'
import type { Accepted, JobOrigin, Ledger, NewJob } from './ledger.ts'
import { asInputError, isDataError } from './ledger-batch.ts'
import { toJson } from './ledger-json.ts'
import { claimFor, claimLarge, isLarge } from './payload-claim.ts'
import type { PayloadStore } from './payload-store.ts'

/** What a producer asks for. The payload must have been checked against the job's schema. */
export interface NewJobInput {
  job: Pick<Job, 'name' | 'queue' | 'attempts' | 'backoff' | 'durable' | 'dedupe'>
  payload: unknown
  /** As the job has it unless said. False: without a row, so it is lost with the queue engine. */
  durable?: boolean
  /** 0 (the default) is before all others, then 1, 2, … */
  priority?: number
  delayMs?: number
  /** Not before this instant, epoch ms. */
  runAt?: number
  /** Unless given, what the job's own `dedupe` makes of the payload. */
  dedupeKey?: string
  context?: JobOrigin
}

/** What `prepare` has made of it: ready for a transaction. */
export interface PreparedJob extends NewJobInput {
  /** As it goes into the row: a claim, for a large payload. */
  payloadJson: string
}

/** Step 1 of docs/protocols/jobs.md: the way in for work. */
export interface Acceptance {
  /**
   * Takes in all of them or none. When it resolves, the durable ones are committed; they are handed to the queue
   * at the same time, which nobody waits for. Concurrent calls share statements.
   *
   * @throws INTAKE_OVERLOADED before anything was done, when too much waits to be committed
   * @throws INPUT_INVALID when JSON cannot carry a payload
   * @throws QUEUE_UNAVAILABLE when a job is not durable and the queue is away
   */
  accept(jobs: NewJobInput[]): Promise<Accepted[]>
  /**
   * Before a transaction: puts large payloads away, which takes time that nobody should hold a connection for. What
   * comes to no row is swept later.
   *
   * @throws INPUT_INVALID when JSON cannot carry a payload
   */
  prepare(jobs: NewJobInput[]): Promise<PreparedJob[]>
  /**
   * The same as `accept` within the caller's transaction: the rows stand and fall with it. `handOver` is to be called
   * after its commit; without it the reconciler finds the rows when they are overdue.
   *
   * @throws what `accept` throws
   */
  acceptIn(database: Queryable, jobs: PreparedJob[]): Promise<{ accepted: Accepted[]; handOver(): void }>
  /** Jobs that were asked for and are not committed yet. */
  readonly pending: number
  /** Resolves when nothing is under way, neither to Postgres nor to the queue. */
  idle(): Promise<void>
}

export interface AcceptanceOptions {
  postgres: Postgres
  ledger: Ledger
  backend: QueueBackend
  clock: Clock
  /** What the caller does not hear of: the queue being away, which the reconciler mends. */
  onError(error: unknown): void
  /** Most jobs that may wait to be committed; 20,000 unless said. */
  maxPending?: number
  /** Takes payloads that are too large for a row; without it they stay there. */
  payloads?: PayloadStore
}

/** Rows of one INSERT. A single request may have more, it is never split. */
const maxRows = 1_000
/** INSERTs under way at once: while one waits for the disk, the next one is made. */
const insertsAtOnce = 2

/** What one call brought: all of it stands or falls together. */
interface Request {
  rows: NewJob[]
}

export function createAcceptance(options: AcceptanceOptions): Acceptance {
  const { ledger, clock, payloads } = options
  const adder = createAdder(options)
  const inserts = createBatcher<Request, Settled>({
    maxItems: 256,
    concurrency: insertsAtOnce,
    run: (requests) => insertAll(ledger, requests),
  })
  const admission = createAdmission(options.maxPending ?? 20_000)

  const takeDurable = async (rows: NewJob[]): Promise<Accepted[]> => {
    if (payloads && rows.some(hasLarge)) await claimLarge(rows, payloads)
    const queued = adder.reachable()
    for (const row of rows) row.queued = queued
    const settled = await inserts.add({ rows })
    if ('error' in settled) throw settled.error
    if (queued) adder.addRows(rows, settled.accepted)
    return settled.accepted
  }

  const takeAll = async (inputs: NewJobInput[], take = takeDurable): Promise<Accepted[]> => {
    const split = splitInputs(inputs, clock)
    await adder.addVolatile(split.entries)
    try {
      const accepted = split.rows.length > 0 ? await take(split.rows) : []
      return split.order.map((each) =>
        each.row === undefined ? each.accepted : (accepted[each.row] as Accepted),
      )
    } catch (error) {
      await adder.takeBack(split.entries)
      throw error
    }
  }

  return {
    accept: (inputs) => admission.admit(inputs, () => takeAll(inputs)),
    prepare: (inputs) => Promise.all(inputs.map((input) => prepared(input, payloads))),
    acceptIn: (database, inputs) =>
      admission.admit(inputs, async () => {
        const taken: { rows: NewJob[]; accepted: Accepted[] } = { rows: [], accepted: [] }
        const accepted = await takeAll(inputs, async (rows) => {
          const queued = adder.reachable()
          for (const row of rows) row.queued = queued
          const inserted = await ledger.insert(rows, database)
          if (queued) Object.assign(taken, { rows, accepted: inserted })
          return inserted
        })
        return { accepted, handOver: () => adder.addRows(taken.rows, taken.accepted) }
      }),
    get pending() {
      return admission.pending
    },
    idle: async () => {
      await inserts.idle()
      await adder.idle()
    },
  }
}

const hasLarge = (row: NewJob): boolean => row.payloadJson !== undefined && isLarge(row.payloadJson)

async function prepared(input: NewJobInput, payloads: PayloadStore | undefined): Promise<PreparedJob> {
  const json = toJson(input.payload, '/payload')
  const apart = payloads !== undefined && (input.durable ?? input.job.durable) && isLarge(json)
  return { ...input, payloadJson: apart ? await claimFor(json, payloads) : json }
}

/** Counts what is under way, and refuses before anything is done. */
function createAdmission(maxPending: number) {
  let pending = 0
  return {
    get pending() {
      return pending
    },
    admit: async <T>(inputs: NewJobInput[], work: () => Promise<T>): Promise<T> => {
      if (pending + inputs.length > maxPending) {
        throw INTAKE_OVERLOADED({ pending }, { retryAfterMs: 1_000 + Math.random() * 1_000 })
      }
      pending += inputs.length
      try {
        return await work()
      } finally {
        pending -= inputs.length
      }
    },
  }
}

type Settled = { accepted: Accepted[] } | { error: unknown }

/** Requests with dedupe keys need a transaction, so the many without are not made to wait for it. */
async function insertAll(ledger: Ledger, requests: Request[]): Promise<Settled[]> {
  const keyed = requests.filter((request) => request.rows.some((row) => row.dedupeKey !== undefined))
  const plain = requests.filter((request) => !keyed.includes(request))
  const settled = new Map<Request, Settled>()
  for (const group of [...grouped(plain), ...grouped(keyed)]) await insertGroup(ledger, group, settled)
  return requests.map((request) => settled.get(request) ?? { error: new Error('not inserted') })
}

function grouped(requests: Request[]): Request[][] {
  const groups: Request[][] = []
  let size = 0
  for (const request of requests) {
    const last = groups.at(-1)
    if (last && size + request.rows.length <= maxRows) last.push(request)
    else {
      groups.push([request])
      size = 0
    }
    size += request.rows.length
  }
  return groups
}

async function insertGroup(ledger: Ledger, group: Request[], settled: Map<Request, Settled>): Promise<void> {
  try {
    const accepted = await ledger.insert(group.flatMap((request) => request.rows))
    let from = 0
    for (const request of group) {
      settled.set(request, { accepted: accepted.slice(from, from + request.rows.length) })
      from += request.rows.length
    }
  } catch (error) {
    if (group.length > 1 && isDataError(error)) {
      // One of them is at fault: each by itself, so that only its caller hears of it.
      for (const request of group) await insertGroup(ledger, [request], settled)
      return
    }
    for (const request of group)
      settled.set(request, { error: isDataError(error) ? asInputError(error) : error })
  }
}

interface Split {
  rows: NewJob[]
  entries: { queue: string; entry: Entry }[]
  /** In the order of the inputs: the index of a row, or the answer for an entry without one. */
  order: ({ row: number } | { row?: undefined; accepted: Accepted })[]
}

function splitInputs(inputs: NewJobInput[], clock: Clock): Split {
  const split: Split = { rows: [], entries: [], order: [] }
  const now = clock.now()
  for (const input of inputs) {
    if (input.durable ?? input.job.durable) {
      split.order.push({ row: split.rows.length })
      split.rows.push(rowOf(input, now))
    } else {
      const entry = entryOf(input, now)
      split.order.push({ accepted: { id: entry.id, duplicate: false, delayMs: entry.delayMs } })
      split.entries.push({ queue: input.job.queue, entry })
    }
  }
  return split
}

/** The row of a job that is asked for. */
export function rowOf(input: NewJobInput & Partial<PreparedJob>, now: number): NewJob {
  const { job } = input
  const dedupeKey = input.dedupeKey ?? job.dedupe?.(input.payload)
  return {
    id: newId(now),
    name: job.name,
    queue: job.queue,
    payload: input.payload,
    payloadJson: input.payloadJson ?? toJson(input.payload, '/payload'),
    priority: input.priority ?? 0,
    maxAttempts: job.attempts,
    delayMs: input.delayMs ?? 0,
    queued: true,
    ...(input.runAt === undefined ? {} : { runAt: input.runAt }),
    ...(dedupeKey === undefined ? {} : { dedupeKey }),
    ...(input.context === undefined ? {} : { context: input.context }),
  }
}

function entryOf(input: NewJobInput, now: number): Entry {
  const { job, context } = input
  // Only to refuse what JSON cannot carry.
  toJson(input.payload, '/payload')
  return {
    id: newId(now),
    name: job.name,
    delayMs: Math.max(0, input.runAt === undefined ? (input.delayMs ?? 0) : input.runAt - now),
    priority: input.priority ?? 0,
    volatile: {
      payload: input.payload,
      attempts: job.attempts,
      backoff: { baseMs: job.backoff.baseMs, maxMs: job.backoff.maxMs },
      ...(context === undefined ? {} : { context }),
    },
  }
}
