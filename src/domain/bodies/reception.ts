import { messageOf } from '../../core/errors.ts'
import type { BodyStore, StagedBody } from './body-store.ts'
import { orderFor } from './placement.ts'
import { createSpool } from './spool.ts'

/** Where the bytes of a put go while its id is not known, and how they become copies once it is. */
export interface Reception {
  /** Resolves when the slowest store wants more. */
  write(piece: Uint8Array): Promise<void>
  /** Flushes, so that `deliver` is quick. */
  seal(): Promise<void>
  /** Makes the copies. */
  deliver(id: string): Promise<Delivery>
  /** Leaves nothing behind but what was delivered. Never throws. */
  end(): Promise<void>
}

export interface Delivery {
  /** Names of the stores that hold a durable copy now. */
  written: string[]
  failures: Error[]
}

export interface ReceptionOptions {
  stores: readonly BodyStore[]
  copies: number
  /** With fewer stores left the put fails. */
  minCopies: number
  spoolFolder: string
  signal: AbortSignal | undefined
}

/** Bodies up to this size are held in memory until their end has come. */
export const memoryBytes = 1_048_576

/**
 * For bytes that a store must know the id of first: they are spooled, then written to the stores that should have
 * them, and to the next in order where one of those fails.
 */
export function createSpooledReception(options: ReceptionOptions): Reception {
  const spool = createSpool({ folder: options.spoolFolder, memoryBytes })

  const deliver = async (id: string): Promise<Delivery> => {
    const order = orderFor(id, options.stores)
    const delivery: Delivery = { written: [], failures: [] }
    while (delivery.written.length < options.copies && order.length > 0) {
      const chosen = order.splice(0, options.copies - delivery.written.length)
      const results = await Promise.allSettled(
        chosen.map((store) => store.put(id, spool.source(), options.signal)),
      )
      for (const [index, result] of results.entries()) {
        if (result.status === 'rejected') delivery.failures.push(errorOf(result.reason))
        else delivery.written.push((chosen[index] as BodyStore).name)
      }
    }
    return delivery
  }

  return {
    write: spool.write,
    seal: async () => undefined,
    deliver,
    end: () => spool.close().catch(() => undefined),
  }
}

const errorOf = (reason: unknown): Error => (reason instanceof Error ? reason : new Error(messageOf(reason)))

type Stage = () => Promise<StagedBody>

/** Whether the bytes can flow to all stores at once, before the id is known. */
export const canStage = ({ stores, copies }: ReceptionOptions): boolean =>
  stores.length === copies && stores.every((store) => store.stage !== undefined)

/** Writes each piece to all stores at the same time, and goes on without a store that failed. */
export async function createStagedReception(options: ReceptionOptions): Promise<Reception> {
  const failures: Error[] = []
  let stages: { name: string; staged: StagedBody }[] = []

  const onEach = async (work: (staged: StagedBody) => Promise<void>): Promise<void> => {
    const results = await Promise.allSettled(stages.map(({ staged }) => work(staged)))
    const failed = stages.filter((_stage, index) => results[index]?.status === 'rejected')
    for (const result of results) if (result.status === 'rejected') failures.push(errorOf(result.reason))
    stages = stages.filter((stage) => !failed.includes(stage))
    for (const { staged } of failed) await staged.discard()
    if (stages.length < options.minCopies) throw failures[0] as Error
  }

  const end = async (): Promise<void> => {
    await Promise.all(stages.map(({ staged }) => staged.discard()))
  }

  const opened = await Promise.allSettled(
    options.stores.map(async (store) => ({ name: store.name, staged: await (store.stage as Stage)() })),
  )
  for (const result of opened) {
    if (result.status === 'fulfilled') stages.push(result.value)
    else failures.push(errorOf(result.reason))
  }
  if (stages.length < options.minCopies) {
    await end()
    throw failures[0] as Error
  }
  return {
    write: (piece) => onEach((staged) => staged.write(piece)),
    seal: () => onEach((staged) => staged.seal()),
    deliver: async (id) => {
      // A store that fails here may have the copy or not: it is not counted, and nobody looks for it there.
      await onEach((staged) => staged.commit(id)).catch(() => undefined)
      return { written: stages.map(({ name }) => name), failures }
    },
    end,
  }
}
