import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { Catalog } from './catalog.ts'
import type { RepairReport } from './repair.ts'

/** Repairs that reads have set off, one after the other, behind the back of whoever reads. */
export interface RepairQueue {
  /** A copy was wrong or missing: writes the wish down, and repairs soon. Never throws. */
  suspect(id: string, error: unknown): void
  idle(): Promise<void>
  close(): Promise<void>
}

/** What does not fit here is written down all the same, and the loop that looks for wishes finds it. */
const maxQueued = 100

export function createRepairQueue(options: {
  repair: (id: string) => Promise<RepairReport>
  catalog: Catalog
  log: Log
}): RepairQueue {
  const queued = new Set<string>()
  let working: Promise<void> | undefined
  let closed = false

  const repairOne = async (id: string): Promise<void> => {
    try {
      await options.catalog.wish(id, 'a read met a bad copy')
      const report = await options.repair(id)
      options.log.info({ body: id, bad: report.bad, written: report.written }, 'repaired a body')
    } catch (error) {
      options.log.warn({ body: id, error: messageOf(error) }, 'could not repair a body yet')
    }
  }

  const work = async (): Promise<void> => {
    for (const id of queued) {
      if (closed) break
      await repairOne(id)
      queued.delete(id)
    }
    working = undefined
  }

  return {
    suspect: (id, error) => {
      options.log.warn({ body: id, error: messageOf(error) }, 'a read met a bad copy of a body')
      if (closed || queued.size >= maxQueued) return
      queued.add(id)
      working ??= work()
    },
    idle: async () => {
      while (working) await working
    },
    close: async () => {
      closed = true
      while (working) await working
    },
  }
}
