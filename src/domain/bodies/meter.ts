import { codeOf } from '../../core/errors.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { Content, PutResult } from './bodies.ts'
import type { RepairReport } from './repair.ts'

/** Counts what came of the work that it is given, and passes it on as it is. */
export interface Meter {
  put(work: Promise<PutResult>): Promise<PutResult>
  got(work: Promise<Content>): Promise<Content>
  repaired(work: Promise<RepairReport>): Promise<RepairReport>
}

export function createMeter(metrics: Metrics | undefined): Meter {
  return {
    put: async (work) => {
      try {
        const result = await work
        metrics?.count('baton_bodies_put_total', { result: result.copies > 1 ? 'two' : 'one' })
        metrics?.count('baton_body_bytes_total', { direction: 'in' }, result.size)
        return result
      } catch (error) {
        metrics?.count('baton_bodies_put_total', { result: 'refused' })
        throw error
      }
    },
    got: async (work) => {
      try {
        const content = await work
        metrics?.count('baton_bodies_got_total', { result: 'sent' })
        metrics?.count('baton_body_bytes_total', { direction: 'out' }, content.end - content.start)
        return content
      } catch (error) {
        metrics?.count('baton_bodies_got_total', { result: codeOf(error) ?? 'other' })
        throw error
      }
    },
    repaired: async (work) => {
      const report = await work
      const { bad, missing, lost, failed } = report
      for (const store of [...bad, ...missing]) metrics?.count('baton_body_bad_copies_total', { store })
      const result = lost ? 'lost' : failed.length > 0 ? 'postponed' : 'whole'
      metrics?.count('baton_body_repairs_total', { result })
      return report
    },
  }
}
