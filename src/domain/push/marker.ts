import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { ClaimedSend } from './claim-rows.ts'
import { createDeviceBatcher } from './device-batcher.ts'
import type { Mark, Marking } from './mark-rows.ts'

/** Writes down what became of sends, many in one statement. */
export interface Marker {
  /**
   * Resolves when it is written. Tries for a minute: while Postgres is away, what was sent must not be forgotten
   * and sent again.
   */
  mark(send: ClaimedSend, mark: Mark): Promise<void>
  /** Whether there are marks that could not be written yet. */
  readonly inTrouble: boolean
}

export interface MarkerOptions {
  write(markings: Marking[]): Promise<void>
  clock: Clock
  log: Log
}

const maxTries = 120

export function createMarker({ write, clock, log }: MarkerOptions): Marker {
  let troubles = 0
  const marks = createDeviceBatcher<Marking & { device: string }, void>(async (markings) => {
    await write(markings)
    return markings.map(() => undefined)
  })

  const insist = async (marking: Marking & { device: string }): Promise<void> => {
    for (let attempt = 1; attempt <= maxTries; attempt += 1) {
      await clock.sleep(Math.min(100 * attempt, 500))
      try {
        return await marks.add(marking)
      } catch (error) {
        if (attempt < maxTries) continue
        const { sendId } = marking.send
        log.warn(
          { sendId, reason: messageOf(error) },
          'a sent push could not be marked; it may be sent again',
        )
      }
    }
  }

  return {
    mark: async (send, mark) => {
      const marking = { device: send.device, send, mark }
      try {
        await marks.add(marking)
      } catch {
        troubles += 1
        await insist(marking).finally(() => {
          troubles -= 1
        })
      }
    },
    get inTrouble() {
      return troubles > 0
    },
  }
}
