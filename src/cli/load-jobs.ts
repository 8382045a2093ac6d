import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { type BatonError, messageOf } from '../core/errors.ts'
import type { Job } from '../platform/queues/job.ts'
import { createRegistry, type Registry } from '../platform/queues/registry.ts'
import { JOBS_UNUSABLE } from './errors.ts'

const projectRoot = fileURLToPath(new URL('../../', import.meta.url))

/**
 * Loads the module of JOBS_MODULE, by default `jobs/index.ts` of the project. A path is read from the working
 * directory.
 *
 * @throws JOBS_UNUSABLE that names the file which throws, or why the list is none
 */
export async function loadJobs(jobsModule: string | undefined): Promise<Registry> {
  const file = jobsModule ? path.resolve(jobsModule) : path.join(projectRoot, 'jobs/index.ts')
  let loaded: { jobs?: unknown }
  try {
    loaded = (await import(pathToFileURL(file).href)) as { jobs?: unknown }
  } catch (error) {
    throw unusable(culprit(error) ?? file, error)
  }
  if (!Array.isArray(loaded.jobs) || loaded.jobs.length === 0) {
    throw unusable(file, new Error('it must export `jobs`, a list of at least one job definition'))
  }
  try {
    return createRegistry(loaded.jobs as Job[])
  } catch (error) {
    throw unusable(file, error)
  }
}

const unusable = (file: string, error: unknown): BatonError =>
  JOBS_UNUSABLE(
    { file: path.relative(process.cwd(), file) || file, reason: messageOf(error) },
    { cause: error },
  )

/** The file that threw: the first of the stack that belongs to no package. A list that imports ten says little. */
function culprit(error: unknown): string | undefined {
  // A definition that is refused is thrown by our own `defineJob`; whoever called it is meant.
  const own = path.join(projectRoot, 'src')
  const stack = error instanceof Error ? (error.stack ?? '') : ''
  for (const [, url = ''] of stack.matchAll(/(file:\/\/[^\s:)]+)/g)) {
    const file = fileURLToPath(url)
    if (!file.includes('/node_modules/') && !file.startsWith(own)) return file
  }
  return undefined
}

/** The queues that a worker serves: all that jobs name, or those of WORKER_QUEUES. @throws JOBS_UNUSABLE for one that no job names */
export function chooseQueues(registry: Registry, wanted: string[]): string[] {
  const unknown = wanted.filter((queue) => !registry.queues.includes(queue))
  if (unknown.length > 0) {
    const reason = `no job names the queue ${unknown.join(', ')}; there are ${registry.queues.join(', ')}`
    throw JOBS_UNUSABLE({ file: 'WORKER_QUEUES', reason })
  }
  return wanted.length > 0 ? wanted : [...registry.queues]
}
