import { type Static, Type } from 'typebox'
import { toIso } from '../../core/clock.ts'
import type { EntryView } from '../../platform/queues/backend.ts'
import type { JobView } from '../../platform/queues/ledger.ts'

const instant = (description: string) => Type.String({ format: 'date-time', description })

export const jobStates = ['waiting', 'delayed', 'active', 'completed', 'failed', 'cancelled'] as const

/** A job as the API shows it: never its payload, which may hold what only its producer may see. */
export const JobDocument = Type.Object({
  id: Type.String({ format: 'uuid' }),
  name: Type.String(),
  queue: Type.String(),
  state: Type.Enum([...jobStates]),
  attempts: Type.Integer({ description: 'Runs that used an attempt, the one under way not counted' }),
  maxAttempts: Type.Integer(),
  interruptions: Type.Integer({
    description: 'Runs that were cut short by a stop or a crash; they use no attempt',
  }),
  progress: Type.Unknown({ description: 'What the job last said of itself; null before' }),
  priority: Type.Integer(),
  retried: Type.Integer({ description: 'How often it was set back by hand' }),
  result: Type.Optional(Type.Unknown()),
  error: Type.Optional(Type.Object({ code: Type.String(), message: Type.String() })),
  enqueuedAt: instant('When it was accepted'),
  runAt: instant('Not run before'),
  startedAt: Type.Optional(instant('When its last run began')),
  finishedAt: Type.Optional(instant('When it was completed, failed or cancelled')),
})

export type JobDocument = Static<typeof JobDocument>

export function documentOf(view: JobView): JobDocument {
  return {
    id: view.id,
    name: view.name,
    queue: view.queue,
    state: view.state,
    attempts: view.attempts,
    maxAttempts: view.maxAttempts,
    interruptions: view.interruptions,
    progress: view.progress ?? null,
    priority: view.priority,
    retried: view.retried,
    ...(view.result === undefined ? {} : { result: view.result }),
    // Without the stack: it tells of our files, not of the caller's mistake.
    ...(view.error ? { error: { code: view.error.code, message: view.error.message } } : {}),
    enqueuedAt: view.enqueuedAt,
    runAt: view.runAt,
    ...(view.startedAt === undefined ? {} : { startedAt: view.startedAt }),
    ...(view.finishedAt === undefined ? {} : { finishedAt: view.finishedAt }),
  }
}

/** The same of work without a row, from what the queue engine remembers of it. */
export function documentOfEntry(entry: EntryView, queue: string, maxAttempts: number): JobDocument {
  return {
    id: entry.id,
    name: entry.name,
    queue,
    state: entry.state,
    attempts: entry.attempts,
    maxAttempts,
    interruptions: 0,
    progress: entry.progress ?? null,
    priority: 0,
    retried: 0,
    ...(entry.state === 'completed' && entry.result !== undefined ? { result: entry.result } : {}),
    ...(entry.error === undefined ? {} : { error: { code: 'JOB_FAILED', message: entry.error } }),
    enqueuedAt: toIso(entry.enqueuedAt),
    runAt: toIso(entry.enqueuedAt),
    ...(entry.startedAt === undefined ? {} : { startedAt: toIso(entry.startedAt) }),
    ...(entry.finishedAt === undefined ? {} : { finishedAt: toIso(entry.finishedAt) }),
  }
}

export const isFinished = (job: JobDocument): boolean =>
  job.state === 'completed' || job.state === 'failed' || job.state === 'cancelled'
