import { codeOf } from '../../core/errors.ts'
import type { Client } from '../postgres/postgres.ts'
import { assertWritable, linesOf, loseRun } from './active-run.ts'
import { assertCheckpoint, readCheckpoint, type SavedCheckpoint } from './checkpoint.ts'
import { JOB_CHECKPOINT_INVALID, JOB_LOST } from './errors.ts'
import type { ContextOptions } from './job-context.ts'

/** The checkpoints of one run: the one that it began with, and those that it saves. */
export interface RunCheckpoints {
  readonly before: SavedCheckpoint
  /** Items that each loop of this run has had, in the order in which the loops began. Saved with every checkpoint. */
  readonly at: number[]
  /** Whether the row has one. */
  kept(): boolean
  /** @throws JOB_LOST, JOB_CHECKPOINT_INVALID, and what Postgres throws */
  save(value: unknown): Promise<void>
  /** The same, but without Postgres the run goes on: then more is repeated after a crash. False: not saved. */
  saveIfAble(value: unknown): Promise<boolean>
  transact(value: unknown, work: (client: Client) => Promise<void>): Promise<void>
}

export function createRunCheckpoints(options: ContextOptions): RunCheckpoints {
  const { run, ledger, clock } = options
  const { id } = run.delivery
  const before = readCheckpoint(options.checkpoint)
  const at: number[] = []
  let kept = before.value !== undefined || before.at !== undefined

  const pack = (value: unknown): SavedCheckpoint => {
    const packed = at.length === 0 ? { value } : { value, at: [...at] }
    assertCheckpoint(packed)
    return packed
  }
  const save = async (value: unknown): Promise<void> => {
    assertWritable(run, 'save')
    const mine = await ledger.saveCheckpoint(id, run.token, pack(value))
    if (!mine) throw loseRun(run, clock.monotonicMs())
    kept = true
  }
  return {
    before,
    at,
    kept: () => kept,
    save,
    saveIfAble: async (value) => {
      try {
        await save(value)
        return true
      } catch (error) {
        if (JOB_CHECKPOINT_INVALID.is(error) || JOB_LOST.is(error)) throw error
        options.log.warn({ ...linesOf(run), code: codeOf(error) }, 'a checkpoint could not be saved')
        return false
      }
    },
    transact: async (value, work) => {
      assertWritable(run, 'transact')
      await options.database.transaction(async (client) => {
        await work(client)
        // The work took its time: what was lost or left behind meanwhile must not be committed.
        assertWritable(run, 'transact')
        const mine = await ledger.saveCheckpoint(id, run.token, pack(value), client)
        if (!mine) throw loseRun(run, clock.monotonicMs())
      })
      kept = true
    },
  }
}
