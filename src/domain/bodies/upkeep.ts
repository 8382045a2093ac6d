import type { RepairReport } from './repair.ts'
import type { AskedStore, BodiesLook, RepairLook } from './upkeep/look.ts'

/** What keeps bodies whole over the years. Jobs call it (jobs/bodies.ts), and the command line. */
export interface BodyUpkeep {
  /** Repairs what is wished for and due; yields after each body. */
  repairDue(): AsyncIterable<Repaired>
  /**
   * Reads every copy of a portion of all bodies: first each new body once, then on from where the last portion
   * ended. Plants a bad copy now and then, and is to find it. Yields after each body.
   */
  scrub(options?: ScrubOptions): AsyncIterable<Repaired>
  /** Wishes for a repair of every body that lies elsewhere than it should, after a store was added or drained. */
  rebalance(): AsyncIterable<string>
  sweep(options: SweepOptions): Promise<SweepReport>
  status(): Promise<BodiesStatus>
  /** The same of the rows alone, for a page that must come soon: of very many a sample is counted. */
  look(): Promise<BodiesLook>
  /** How each store answers within so many ms. Never throws. */
  askStores(waitMs: number): Promise<AskedStore[]>
  /** What waits for a repair. Asks no store. */
  repairs(): Promise<RepairLook>
  /** Accepts a place that is empty now under the name of a store, and wishes for a repair of all that lay there. */
  adopt(store: string): Promise<{ wished: number }>
}

export interface Repaired {
  id: string
  size: number
  report: RepairReport
}

export interface ScrubOptions {
  /** Most bodies in this portion; unless said, what one an hour needs to read all of them within 30 days. */
  limit?: number
  /** Read at most so fast; 20 MiB a second unless said. */
  bytesPerSecond?: number
  /** A new body is read for the first time when it has lain for so long, ms; an hour unless said. */
  settledMs?: number
  /** Pause between planted bad copies, ms; a week unless said. */
  canaryMs?: number
  signal?: AbortSignal
}

export interface SweepOptions {
  /** A body is kept for so long after its last put, although nothing refers to it, ms; as configured unless said. */
  retentionMs?: number
  /** From the condemnation to the removal, and how old a file without a row has to be, ms; 24 h unless said. */
  graceMs?: number
  /** Takes out of the set whatever is referred to. Called anew in each phase. */
  keepReferenced(candidates: Set<string>): Promise<void>
  /** Goes on although the plan is suspiciously large. */
  force?: boolean
  signal?: AbortSignal
}

export interface SweepReport {
  /** Marked, to be removed by a sweep after the grace. */
  condemned: number
  removed: number
  /** Files without a row, by store. */
  orphans: Record<string, number>
  /** What crashed writers left behind. */
  staged: number
  /** What was planned and not done, with the reason: a person has to look, and then to force it. */
  tripped: string[]
  /** Stores that could not be swept now, with the reason. */
  failed: string[]
}

export interface BodiesStatus {
  bodies: number
  bytes: number
  stores: StoreStatus[]
  repairs: { waiting: number; oldestMs: number; lost: number }
  scrub: {
    passes: number
    checked: number
    bad: number
    missing: number
    lost: number
    ranAt: string | null
    neverChecked: number
    /** A planted bad copy that was not found within a day: the scrubber does not do its work. */
    canary: 'none' | 'planted' | 'found' | 'overdue'
  }
  condemned: number
}

export interface StoreStatus {
  name: string
  /** `ok`, or why it cannot be used. */
  state: string
  draining: boolean
  /** Recorded copies. Null for a store that is not configured any more. */
  copies: number
  configured: boolean
}
