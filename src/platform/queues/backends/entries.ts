import type { IQueueBackend, Job, JobJson, JobsOptions } from 'bullmq'
import { messageOf } from '../../../core/errors.ts'
import type { Delivery, Entry, EntryView } from '../backend.ts'
import type { Taken } from './exchange.ts'

/** What an entry without a row carries. The payload is a text when the engine could not keep it as JSON. */
interface VolatileData {
  payload?: unknown
  payloadText?: string
  context?: unknown
  backoff: { baseMs: number; maxMs: number }
}

/** Retries of entries without a row are timed by Baton's own back-off, which has a ceiling and jitter. */
export const backoffType = 'baton'

/** How long entries without a row stay to be looked at, seconds and number: nobody else remembers them. */
export const kept = { age: 24 * 3_600, count: 1_000 }
const keptFailed = { age: 7 * 24 * 3_600, count: 1_000 }

/** A row decides over a durable job, so its entry vanishes once it was delivered and carries nothing. */
const durableOptions: JobsOptions = { removeOnComplete: true, removeOnFail: true, attempts: 1 }

/** The same as text, for entries that are added without BullMQ's help. */
export const plainOptions = JSON.stringify(durableOptions)

export const isPlain = (entry: Entry): boolean =>
  entry.volatile === undefined && entry.delayMs < 1 && entry.priority === 0

/** BullMQ's form of an entry, made without its Job class: that costs more than the entry itself. */
export function jobJson(entry: Entry, epochMs: number): JobJson {
  const options = entry.volatile ? volatileOptions(entry.volatile) : { ...durableOptions }
  const delay = Math.round(entry.delayMs)
  if (delay > 0) options.delay = delay
  if (entry.priority > 0) options.priority = entry.priority
  return {
    id: entry.id,
    name: entry.name,
    data: entry.volatile ? volatileData(entry.volatile) : '{}',
    opts: options,
    timestamp: Math.round(epochMs),
    ...(delay > 0 ? { delay } : {}),
    priority: entry.priority,
  } as JobJson
}

type Volatile = NonNullable<Entry['volatile']>

const volatileOptions = (volatile: Volatile): JobsOptions => ({
  removeOnComplete: kept,
  removeOnFail: keptFailed,
  attempts: volatile.attempts,
  backoff: { type: backoffType, delay: volatile.backoff.baseMs },
})

function volatileData(volatile: Volatile): string {
  const text = JSON.stringify(volatile.payload) ?? 'null'
  // jsonb, which the Postgres engine keeps its data in, holds neither NUL nor half a surrogate pair.
  const payload = /\\u(0000|d[89a-f])/i.test(text)
    ? { payloadText: Buffer.from(text).toString('base64') }
    : { payload: volatile.payload ?? null }
  const data: VolatileData = { ...payload, backoff: volatile.backoff }
  if (volatile.context !== undefined) data.context = volatile.context
  return JSON.stringify(data)
}

const payloadOf = (data: VolatileData): unknown =>
  data.payloadText === undefined
    ? data.payload
    : (JSON.parse(Buffer.from(data.payloadText, 'base64').toString()) as unknown)

const isVolatile = (data: unknown): data is VolatileData =>
  typeof data === 'object' && data !== null && 'backoff' in data

/** What the back-off of a failed entry is made of. */
export const backoffOf = (data: unknown): VolatileData['backoff'] =>
  isVolatile(data) ? data.backoff : { baseMs: 1_000, maxMs: 60_000 }

export function asDelivery(
  taken: Taken,
  { queue, backend, free }: { queue: string; backend: IQueueBackend; free: () => void },
): Delivery {
  const { id, name } = taken
  // Nearly all entries are those of rows, and carry nothing.
  const data: unknown = taken.data === '{}' ? undefined : JSON.parse(taken.data)
  return {
    id,
    name,
    queue,
    ...(isVolatile(data) ? { volatile: volatileDelivery(taken, data) } : {}),
    showProgress: (value) => backend.updateProgress(id, value as never),
    free,
  }
}

const volatileDelivery = (taken: Taken, data: VolatileData): NonNullable<Delivery['volatile']> => ({
  payload: payloadOf(data),
  attempt: taken.attemptsMade + 1,
  attempts: taken.attempts,
  stalls: taken.stalls,
  ...(data.context === undefined ? {} : { context: data.context }),
})

export async function asView(job: Job): Promise<EntryView | undefined> {
  const state = stateOf(await job.getState())
  if (!state) return undefined
  const data: unknown = job.data
  return {
    id: job.id ?? '',
    name: job.name,
    state,
    payload: isVolatile(data) ? payloadOf(data) : undefined,
    attempts: job.attemptsMade,
    progress: job.progress === 0 ? undefined : job.progress,
    result: job.returnvalue ?? undefined,
    error: job.failedReason || undefined,
    enqueuedAt: job.timestamp,
    startedAt: job.processedOn,
    finishedAt: job.finishedOn,
  }
}

function stateOf(state: string): EntryView['state'] | undefined {
  if (state === 'waiting' || state === 'prioritized' || state === 'waiting-children') return 'waiting'
  if (state === 'delayed' || state === 'active' || state === 'completed' || state === 'failed') return state
  return undefined
}

export const asError = (thrown: unknown): Error =>
  thrown instanceof Error ? thrown : new Error(messageOf(thrown))
