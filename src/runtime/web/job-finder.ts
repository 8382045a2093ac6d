import { isId } from '../../core/ids.ts'
import type { QueueBackend } from '../../platform/queues/backend.ts'
import type { Ledger } from '../../platform/queues/ledger.ts'
import type { Registry } from '../../platform/queues/registry.ts'
import { documentOf, documentOfEntry, type JobDocument } from './job-view.ts'

/** Finds jobs wherever they are: in the ledger, or, for work without a row, in the queue engine. */
export interface JobFinder {
  find(id: string): Promise<JobDocument | undefined>
  /** One statement for all that have a row. Those that are nowhere are missing in the answer. */
  findMany(ids: string[]): Promise<Map<string, JobDocument>>
}

export interface JobFinderOptions {
  ledger: Pick<Ledger, 'get' | 'getMany'>
  backend: Pick<QueueBackend, 'find'>
  registry: Registry
}

export function createJobFinder(options: JobFinderOptions): JobFinder {
  const { ledger, backend, registry } = options

  const findEntry = async (id: string): Promise<JobDocument | undefined> => {
    for (const queue of registry.queues) {
      const entry = await backend.find(queue, id)
      if (entry) return documentOfEntry(entry, queue, registry.find(entry.name)?.attempts ?? 1)
    }
    return undefined
  }

  return {
    find: async (id) => {
      if (!isId(id)) return undefined
      const view = await ledger.get(id)
      if (view) return documentOf(view)
      return findEntry(id)
    },
    findMany: async (ids) => {
      const found = new Map<string, JobDocument>()
      for (const view of await ledger.getMany(ids)) found.set(view.id, documentOf(view))
      const others = ids.filter((id) => !found.has(id))
      for (const job of await Promise.all(others.map(findEntry))) if (job) found.set(job.id, job)
      return found
    },
  }
}
