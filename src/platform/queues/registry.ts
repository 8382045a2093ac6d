import type { Fault } from '../../core/errors.ts'
import { INPUT_INVALID, JOB_DEFINITION_INVALID, JOB_DUPLICATE_NAME, JOB_UNKNOWN } from './errors.ts'
import { type Check, createCheck, summaryOf } from './faults.ts'
import type { Job } from './job.ts'

/** All jobs of the project, by name. `Deps` is what their handlers need together. */
export interface Registry<Deps = unknown> {
  /** In the order of their definition. */
  readonly jobs: readonly Job[]
  /** Every queue that a job names, without repetition. */
  readonly queues: readonly string[]
  find(name: string): Job | undefined
  /** @throws JOB_UNKNOWN */
  get(name: string): Job
  /**
   * Every fault of a payload at once, each by its JSON pointer (`/rows/3/name`); none when it fits. Properties
   * that the schema does not name are faults only if it says `additionalProperties: false`.
   * @throws JOB_UNKNOWN
   */
  validate(name: string, payload: unknown): Fault[]
  /** The same for a checkpoint; a job without a schema for it takes any. */
  validateCheckpoint(name: string, checkpoint: unknown): Fault[]
  /** Only for the compiler: what `createJobRunner` must be given. */
  readonly needs?: (deps: Deps) => void
}

/** What all handlers of a list of jobs need together. */
export type DepsOf<Jobs extends readonly unknown[]> = (
  Jobs[number] extends infer Each
    ? Each extends { run(payload: never, deps: infer Deps, context: never): unknown }
      ? (deps: Deps) => void
      : never
    : never
) extends (deps: infer All) => void
  ? All
  : never

interface Registered {
  job: Job
  payload: Check
  checkpoint: Check | undefined
}

/**
 * @throws JOB_DUPLICATE_NAME
 * @throws JOB_DEFINITION_INVALID when the payload of a schedule does not fit the job
 */
export function createRegistry<const Jobs extends readonly Job[]>(definitions: Jobs): Registry<DepsOf<Jobs>> {
  const byName = new Map<string, Registered>()
  for (const definition of definitions) {
    if (byName.has(definition.name)) throw JOB_DUPLICATE_NAME({ name: definition.name })
    byName.set(definition.name, register(definition))
  }
  const jobs = [...byName.values()].map(({ job }) => job)
  const entry = (name: string): Registered => {
    const registered = byName.get(name)
    if (!registered) throw JOB_UNKNOWN({ name })
    return registered
  }
  return {
    jobs,
    queues: [...new Set(jobs.map((job) => job.queue))],
    find: (name) => byName.get(name)?.job,
    get: (name) => entry(name).job,
    validate: (name, payload) => entry(name).payload(payload),
    validateCheckpoint: (name, checkpoint) =>
      // The first run has none.
      checkpoint === undefined ? [] : (entry(name).checkpoint?.(checkpoint) ?? []),
  }
}

/** @throws INPUT_INVALID that carries the faults, if there are any */
export function assertFits(faults: Fault[]): void {
  if (faults.length > 0) throw INPUT_INVALID({ summary: summaryOf(faults) }, { faults })
}

function register(job: Job): Registered {
  const payload = createCheck(job.payload)
  const checkpoint = job.checkpoint === undefined ? undefined : createCheck(job.checkpoint)
  if (job.schedule) {
    const faults = payload(job.schedule.payload).map(({ path, message }) => ({
      path: `/schedule/payload${path}`,
      message,
    }))
    if (faults.length > 0) {
      throw JOB_DEFINITION_INVALID({ name: job.name, faults: summaryOf(faults) }, { faults })
    }
  }
  return { job, payload, checkpoint }
}
