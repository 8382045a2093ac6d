import type { Admission } from './admission.ts'
import type { PutOptions, PutResult } from './bodies.ts'
import type { BodyStore } from './body-store.ts'
import type { Catalog } from './catalog.ts'
import { createBodyHasher } from './chunk-digests.ts'
import { BODY_UNAVAILABLE } from './errors.ts'
import { pieces } from './pieces.ts'
import {
  canStage,
  createSpooledReception,
  createStagedReception,
  memoryBytes,
  type Reception,
  type ReceptionOptions,
} from './reception.ts'

export interface ReceiveOptions {
  /** The stores that take new bodies. */
  stores: readonly BodyStore[]
  catalog: Catalog
  admission: Admission
  copies: number
  maxBytes: number
  spoolFolder: string
}

/**
 * A put, in the order that a crash between any two steps is harmless in:
 *
 * 1. The bytes go to the stores, where nobody sees them. _Crash_: files that a sweep removes after a while.
 * 2. The row is announced, without copies. _Crash_: nobody sees the body; the sweep removes the row.
 * 3. The bytes get their name in the stores. _Crash_: as before, and the bytes go with the row.
 * 4. The row records the copies, with a wish for a repair in the same transaction when one is missing.
 *    _Crash_: the body is there and whole; its sender does not know it and sends it again.
 *
 * The row comes before the name because a sweep removes bytes only while it holds their row, and only rows that
 * nobody announced for a long time: so it can never take away what a put has just written.
 */
export async function receive(
  options: ReceiveOptions,
  source: AsyncIterable<Uint8Array>,
  wish: PutOptions,
): Promise<PutResult> {
  const leave = await options.admission.enter(wish.signal)
  try {
    return await takeIn(options, source, wish)
  } finally {
    leave()
  }
}

async function takeIn(
  options: ReceiveOptions,
  source: AsyncIterable<Uint8Array>,
  { minCopies = 2, signal }: PutOptions,
): Promise<PutResult> {
  const { catalog, copies } = options
  const needed = Math.min(minCopies, copies)
  const intake = createIntake({ ...options, minCopies: needed, signal })
  const hasher = createBodyHasher()
  try {
    for await (const piece of pieces(source, { maxBytes: options.maxBytes, signal })) {
      hasher.update(piece)
      await intake.write(piece)
    }
    const digest = hasher.digest()
    const reception = await intake.complete()
    await Promise.all([reception.seal(), catalog.announce(digest)])
    signal?.throwIfAborted()
    const { written, failures } = await reception.deliver(digest.id)
    if (written.length < needed) throw failures[0] ?? noStores()
    await catalog.record(digest.id, written, written.length < copies ? 'a copy is missing' : undefined)
    return { id: digest.id, size: digest.size, copies: written.length }
  } finally {
    await intake.end()
  }
}

const noStores = (): Error => BODY_UNAVAILABLE({ store: '(none)', reason: 'no store takes new bodies' })

interface Intake {
  write(piece: Uint8Array): Promise<void>
  complete(): Promise<Reception>
  end(): Promise<void>
}

/**
 * Opens a reception when it is known which kind is wanted: a small body needs no file before its id is known. Each
 * piece is written while the next one is read and hashed.
 */
function createIntake(options: ReceptionOptions): Intake {
  let reception: Reception | undefined
  let held: Uint8Array[] = []
  let heldBytes = 0
  let writing: Promise<void> = Promise.resolve()

  const open = async (): Promise<Reception> => {
    reception = canStage(options) ? await createStagedReception(options) : createSpooledReception(options)
    for (const piece of held) await reception.write(piece)
    held = []
    return reception
  }

  const writeOn = async (piece: Uint8Array): Promise<void> => {
    await writing
    if (!reception) return
    writing = reception.write(piece)
    // Seen by the next write, or by complete; until then it is not unhandled.
    writing.catch(() => undefined)
  }

  return {
    write: async (piece) => {
      if (reception) return writeOn(piece)
      held.push(piece)
      heldBytes += piece.length
      if (heldBytes > memoryBytes) await open()
    },
    complete: async () => {
      await writing
      return reception ?? open()
    },
    end: async () => {
      await writing.catch(() => undefined)
      await reception?.end()
    },
  }
}
